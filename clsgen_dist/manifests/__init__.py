"""Rules that Kubernetes manifests of this program must keep and no schema knows; `python -m clsgen_dist.manifests`."""
