"""Checks Kubernetes manifests of this program before they are applied:

python -m clsgen_dist.manifests k8s/overlays/laptop
kubectl kustomize k8s/overlays/laptop | python -m clsgen_dist.manifests -

Says all that contradicts: more workers than GPUs, names that lead nowhere, a retry that would begin anew. Exit code 2
where anything does. Needs no cluster; kubectl where a folder is given.
"""

import sys
from pathlib import Path

from clsgen_dist.errors import ClsGenError
from clsgen_dist.manifests.check import check, load
from clsgen_dist.manifests.objects import read_manifests
from clsgen_dist.manifests.references import needed_secrets


def main(words: list[str]) -> int:
    if len(words) != 1 or words[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if words in (["-h"], ["--help"]) else 2
    try:
        manifests = read_manifests(sys.stdin.read()) if words[0] == "-" else load(Path(words[0]))
        faults = check(manifests)
    except ClsGenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 2
    print(f"{len(manifests)} objects, no contradiction")
    for name, keys in sorted(needed_secrets(manifests).items()):
        optional = " (optional)" if all(keys.values()) else ""
        print(f"needs the Secret {name} with {', '.join(sorted(keys))}{optional}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
