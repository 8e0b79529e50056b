"""Every overlay builds, fits the schemas of Kubernetes and KubeRay, and breaks no rule."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import clsgen_dist
from clsgen_dist.manifests.check import check
from clsgen_dist.manifests.commands import parse_commands
from clsgen_dist.manifests.objects import Manifest, name_of, of_kind, pods_of
from clsgen_dist.manifests.references import needed_secrets
from tests.support.kubernetes import COMPONENTS, OVERLAYS, ROOT, overlay, schema_faults, with_components


def assert_sound(manifests: list[Manifest]) -> None:
    """Core objects, and pods of every template as pods of their own, are strictly valid; no rule is broken."""
    found = {name_of(m): schema_faults(m) for m in manifests if not m["apiVersion"].startswith("ray.io/")}
    for pod in pods_of(manifests):
        metadata = {**pod.metadata, "name": "one"}
        found[pod.place] = schema_faults({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec})
    assert {place: faults for place, faults in found.items() if faults} == {}
    assert [str(fault) for fault in check(manifests)] == []


def test_there_are_the_three_overlays() -> None:
    assert OVERLAYS == ["gpu-multi-node", "gpu-single-node", "laptop"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_is_sound(name: str) -> None:
    assert_sound(overlay(name))


@pytest.mark.parametrize("name", OVERLAYS)
def test_ray_objects_fit_the_definitions_of_kuberay(name: str) -> None:
    found = [m for m in overlay(name) if m["apiVersion"].startswith("ray.io/")]
    assert {m["kind"] for m in found} == {"RayJob", "RayCluster"}
    assert {name_of(m): schema_faults(m) for m in found} == {name_of(m): [] for m in found}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("name", ["laptop", "gpu-multi-node"])
def test_options_are_sound(name: str, component: str, tmp_path: Path) -> None:
    assert_sound(with_components(tmp_path, name, component))


def test_all_options_go_together(tmp_path: Path) -> None:
    assert_sound(with_components(tmp_path, "gpu-multi-node", *COMPONENTS))


def test_options_change_what_they_say(tmp_path: Path) -> None:
    built = with_components(tmp_path, "gpu-single-node", *COMPONENTS)
    queued = [name_of(m) for m in built if "kueue.x-k8s.io/queue-name" in m["metadata"].get("labels", {})]
    assert sorted(queued) == ["Job/evaluate", "Job/explain", "RayCluster/develop", "RayJob/train"]
    text = str(built)
    assert "s3://example-bucket/mlflow" in text
    assert "'name': 'mlflow-artifacts'" not in text
    assert "'name': 'HF_HUB_OFFLINE', 'value': '1'" not in text
    assert needed_secrets(built).keys() == {"postgres", "huggingface", "artifacts"}


def test_a_misspelled_field_is_found() -> None:
    """The schemas are strict in earnest."""
    job = of_kind(overlay("laptop"), "RayJob")[0]
    job["spec"]["backOffLimit"] = 1  # type: ignore[index]
    assert len(schema_faults(job)) == 1
    service = of_kind(overlay("laptop"), "Service")[0]
    service["spec"]["selektor"] = {}  # type: ignore[index]
    assert len(schema_faults(service)) == 1


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_launcher_is_parsed_as_a_launcher_parses(name: str) -> None:
    parsed, faults = parse_commands(overlay(name))
    assert faults == []
    assert sorted(one.command.launcher for one in parsed) == ["evaluate.py", "explain.py", "ray_train.py"]
    config = next(one.config for one in parsed if one.command.launcher == "ray_train.py")
    assert config is not None
    assert str(config.folder) == f"/workspace/runs/{config.run.name}"


@pytest.mark.parametrize("name", OVERLAYS)
def test_image_and_ray_are_of_this_version(name: str) -> None:
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    for pod in pods_of(overlay(name)):
        for container in [*pod.init_containers, *pod.containers]:
            image = container["image"].rpartition("/")[2]
            if image.startswith("clsgen-dist"):
                assert image == f"clsgen-dist:{clsgen_dist.__version__}-{'cpu' if name == 'laptop' else 'cuda'}"
    job = of_kind(overlay(name), "RayJob")[0]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_accounts_have_no_rights(name: str) -> None:
    manifests = overlay(name)
    assert not of_kind(manifests, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Secret")
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(manifests, "ServiceAccount"))


def test_secrets_are_made_as_the_page_says(tmp_path: Path) -> None:
    """Every Secret and key that pods read is made by a command of k8s/README.md."""
    made: dict[str, set[str]] = {}
    page = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"kubectl .*create secret generic .*", page):
        words = shlex.split(line)
        name = words[words.index("generic") + 1]
        made[name] = {re.split("[=]", word)[1] for word in words if word.startswith("--from-literal=")}
    needed = needed_secrets(with_components(tmp_path, "gpu-multi-node", *COMPONENTS))
    assert {name: set(keys) for name, keys in needed.items()} == made


def test_mlflow_takes_its_arguments_and_hosts() -> None:
    """MLflow's own command line reads the Deployment's, and its host check lets in what pods and people say."""
    from mlflow.cli import server
    from mlflow.server.security_utils import is_allowed_host_header

    container = next(pod for pod in pods_of(overlay("laptop")) if pod.place == "Deployment/mlflow").containers[0]
    assert container["command"] == ["mlflow", "server"]
    context = server.make_context("mlflow server", list(container["args"]))
    allowed = context.params["allowed_hosts"].split(",")
    for host in ("mlflow:5000", "mlflow.clsgen-dist.svc.cluster.local:5000", "localhost:8080", "127.0.0.1:5000"):
        assert is_allowed_host_header(allowed, host)
    assert not is_allowed_host_header(allowed, "example.com:5000")


def test_commands_of_the_page_name_what_exists() -> None:
    """Objects, folders and options that k8s/README.md has people type."""
    page = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    known = {name_of(m).lower() for m in overlay("laptop")}
    named = re.findall(r"kubectl (?:-n clsgen-dist )?(?:patch|get|delete) (rayjob|raycluster|job) (\w+)", page)
    named += [tuple(word.split("/")) for word in re.findall(r"\b(?:raycluster|job|service)/\w+", page)]
    assert len(named) >= 6
    assert {f"{kind}/{name}" for kind, name in named} <= known
    for folder in re.findall(r"k8s/overlays/([\w-]+)|`overlays/([\w-]+)`", page):
        assert (folder[0] or folder[1]) in OVERLAYS
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.M)) == set(COMPONENTS)
    for line in re.findall(r"^ {4}(?:HEAD=\$\()?kubectl .*", page, re.M):
        assert "clsgen-dist" in line or "kubectl apply -k k8s/overlays/" in line, line
