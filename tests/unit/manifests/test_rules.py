"""Each rule finds what it is for: one change to a shipped overlay, and the fault that it must bring."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from clsgen_dist.errors import ConfigError
from clsgen_dist.manifests.__main__ import main
from clsgen_dist.manifests.check import check, load
from clsgen_dist.manifests.network import matches
from clsgen_dist.manifests.objects import amount, name_of, read_manifests
from tests.support.kubernetes import KUBECTL, ROOT, overlay

ABSENT = object()
HEAD = "spec.rayClusterSpec.headGroupSpec"
WORKERS = "spec.rayClusterSpec.workerGroupSpecs.0"
POD = "spec.template.spec"
LAPTOP, NODES = "laptop", "gpu-multi-node"


def changed(name: str, target: str, path: str, value: Any) -> list[Any]:
    """An overlay with one value of one object set, or taken away where it is ABSENT."""
    manifests = overlay(name)
    branch = next(manifest for manifest in manifests if name_of(manifest) == target)
    *keys, last = path.split(".")
    for key in keys:
        branch = branch[int(key)] if isinstance(branch, list) else branch.setdefault(key, {})
    if isinstance(branch, list):
        branch[int(last)] = value
    elif value is ABSENT:
        del branch[last]
    else:
        branch[last] = value
    return manifests


def found(manifests: list[Any]) -> list[str]:
    return [str(fault) for fault in check(manifests)]


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        (LAPTOP, "spec.submissionMode", "Foo", "submissionMode Foo: expected one of K8sJobMode"),
        (LAPTOP, "spec.submitterConfig.backoffLimit", 2, "submitterConfig.backoffLimit must be 0"),
        (LAPTOP, "spec.submitterConfig", ABSENT, "submitterConfig.backoffLimit must be 0"),
        (LAPTOP, "spec.submitterPodTemplate", ABSENT, "no submitterPodTemplate"),
        (LAPTOP, "spec.backoffLimit", -1, "backoffLimit is -1, expected 0 or more"),
        (LAPTOP, "spec.submissionMode", "InteractiveMode", "backoffLimit starts new clusters, which InteractiveMode"),
        (
            LAPTOP,
            "spec.submissionMode",
            "SidecarMode",
            "submitterPodTemplate cannot go with submissionMode SidecarMode",
        ),
        (LAPTOP, "spec.preRunningDeadlineSeconds", 0, "preRunningDeadlineSeconds is 0, expected 1 or more"),
        (LAPTOP, "spec.runtimeEnvYAML", "a: [", "runtimeEnvYAML is not YAML"),
        (LAPTOP, "spec.ttlSecondsAfterFinished", -1, "ttlSecondsAfterFinished is -1"),
        (LAPTOP, "spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished has no use without"),
        (LAPTOP, "spec.shutdownAfterJobFinishes", ABSENT, "nothing ends the cluster when the job is done"),
        (
            LAPTOP,
            "spec.deletionStrategy",
            {"deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]},
            "deletionRules cannot go with shutdownAfterJobFinishes: true",
        ),
        (LAPTOP, "spec.deletionStrategy", {}, "deletionStrategy needs deletionRules, or both onSuccess and onFailure"),
        (
            LAPTOP,
            "spec.deletionStrategy",
            {"onSuccess": {"policy": "DeleteNone"}, "onFailure": {"policy": "DeleteSelf"}},
            "DeleteNone cannot go with shutdownAfterJobFinishes: true",
        ),
        (LAPTOP, "metadata.name", "t" * 48, "the name has more than 47 characters"),
        (LAPTOP, "spec.rayClusterSpec.authOptions", ABSENT, "authOptions.mode is not token"),
        (LAPTOP, "spec.rayClusterSpec.rayVersion", ABSENT, "no rayVersion"),
        (LAPTOP, f"{WORKERS}.maxReplicas", ABSENT, "minReplicas and maxReplicas must both be set"),
        (LAPTOP, f"{WORKERS}.replicas", 2, "replicas 2 must lie between minReplicas 1 and maxReplicas 1"),
        (LAPTOP, f"{WORKERS}.resources", {"CPU": "2"}, "sizes stand in rayStartParams and in resources"),
        (LAPTOP, f"{HEAD}.rayStartParams.num-cpus", "2", 'rayStartParams.num-cpus must be "0"'),
        (LAPTOP, f"{HEAD}.template.spec.containers.0.env.0.name", "OTHER", "RAY_AUTH_MODE is not set"),
        (LAPTOP, f"{HEAD}.template.spec.containers.0.env.0.value", "disabled", "RAY_AUTH_MODE is disabled and differs"),
        (LAPTOP, "spec.submitterPodTemplate.spec.containers.0.env", [], "RayJob/train submitter: RAY_AUTH_MODE is not"),
        (NODES, f"{HEAD}.template.spec.containers.0.resources.limits", {"nvidia.com/gpu": 1}, "1 GPU(s) on the head"),
        (NODES, f"{WORKERS}.rayStartParams.num-gpus", "4", "num-gpus is 4, the container gets 8 GPU(s)"),
        (NODES, f"{WORKERS}.rayStartParams.num-cpus", "128", "num-cpus is 128, the container asks for 96 CPUs"),
        (NODES, f"{WORKERS}.replicas", 1, "train.num_workers is 16, the worker pods have 8 GPU(s); the job would wait"),
        (NODES, f"{WORKERS}.replicas", 3, "train.num_workers is 16, the worker pods have 24 GPUs; some would be idle"),
        (NODES, f"{WORKERS}.rayStartParams.num-cpus", "4", "4 CPUs for 8 workers"),
        (LAPTOP, f"{WORKERS}.rayStartParams.num-cpus", "1", "train.num_workers is 2, the worker pods have 1 CPU slot"),
        (LAPTOP, "spec.entrypoint", "python launchers/ray_train.py", "--config FILE.yaml is missing"),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/other.yaml",
            "/etc/clsgen-dist/other.yaml: no such configuration file",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --train.learning_rat 1",
            "the nearest valid key is train.learning_rate",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_trian.py --config /etc/clsgen-dist/run.yaml",
            "launchers/ray_trian.py: there is no such launcher",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/compare.py --config examples/compare_demo.yaml --arms joined",
            "joined",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python /srv/launchers/ray_train.py --config /etc/clsgen-dist/run.yaml",
            "/srv/launchers/ray_train.py is not in /opt/clsgen_dist",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --run.output_dir /tmp/runs",
            "run.output_dir /tmp/runs is in no volume that is kept",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --train.checkpoint_steps null",
            "train.checkpoint_steps null lets each begin anew",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --tracking.uri http://mlflow:5001",
            "Service/mlflow has port 5000",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --tracking.uri http://tracker:5000",
            "there is no Service tracker",
        ),
        (
            LAPTOP,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --run.name other",
            "Job/evaluate, container evaluate: --bundle /workspace/runs/demo/bundle: the trained run stands in",
        ),
        (
            NODES,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --data.train data/rows.csv",
            "data.train data/rows.csv would be looked for in the image",
        ),
        (
            NODES,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --data.test /data/rows.csv",
            "data.test /data/rows.csv is in no volume that is kept",
        ),
        (
            NODES,
            "spec.entrypoint",
            "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --model.name_or_path org/model",
            "model.name_or_path org/model is a name on the Hub and HF_HUB_OFFLINE is 1",
        ),
        (
            LAPTOP,
            f"{WORKERS}.template.spec.terminationGracePeriodSeconds",
            60,
            "terminationGracePeriodSeconds is 60; Ray takes up to 60 s to leave",
        ),
        (LAPTOP, f"{WORKERS}.template.spec.volumes.2.emptyDir", {}, "no memory at /dev/shm"),
        (
            LAPTOP,
            f"{WORKERS}.template.spec.volumes.2.emptyDir.sizeLimit",
            "7Gi",
            "shared memory of 7Gi counts as memory",
        ),
        (LAPTOP, f"{WORKERS}.replicas", -1, "replicas, minReplicas and maxReplicas must be 0 or more"),
        (LAPTOP, "spec.rayClusterSpec", ABSENT, "neither rayClusterSpec nor clusterSelector"),
        (LAPTOP, f"{WORKERS}.template.metadata.labels", {}, "no NetworkPolicy lets it send to Deployment/mlflow"),
    ],
)
def test_training(name: str, path: str, value: Any, message: str) -> None:
    assert any(message in fault for fault in found(changed(name, "RayJob/train", path, value)))


def test_a_run_in_an_object_store_needs_no_volume_that_is_kept() -> None:
    command = "python launchers/ray_train.py --config /etc/clsgen-dist/run.yaml --run.output_dir /tmp/runs"
    lost = "run.output_dir /tmp/runs is in no volume that is kept"
    assert any(lost in fault for fault in found(changed(LAPTOP, "RayJob/train", "spec.entrypoint", command)))
    stored = f"{command} --run.storage s3://runs/x"
    assert not any(lost in fault for fault in found(changed(LAPTOP, "RayJob/train", "spec.entrypoint", stored)))


def rules(*given: tuple[str, str, int]) -> dict[str, Any]:
    condition = [{"policy": p, "condition": {"jobStatus": s, "ttlSeconds": t}} for p, s, t in given]
    return {"deletionRules": condition}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (rules(("DeleteWorkers", "FAILED", 9), ("DeleteCluster", "FAILED", 5)), "DeleteCluster after 5 s comes before"),
        (rules(("DeleteSelf", "FAILED", 1), ("DeleteSelf", "FAILED", 2)), "DeleteSelf stands there a second time"),
        (rules(("DeleteSelf", "FAILED", -1)), "ttlSeconds is -1"),
        ({"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}, "must have one of jobStatus"),
        (rules(("DeleteSelf", "FAILED", 1)) | {"onSuccess": {"policy": "DeleteSelf"}}, "onFailure; keep one kind"),
        (rules(("DeleteWorkers", "FAILED", 5), ("DeleteCluster", "FAILED", 9)), None),
        (rules(("DeleteSelf", "SUCCEEDED", 0), ("DeleteCluster", "FAILED", 9)), None),
    ],
)
def test_deletion_rules(strategy: dict[str, Any], message: str | None) -> None:
    manifests = changed("laptop", "RayJob/train", "spec.deletionStrategy", strategy)
    job = next(manifest for manifest in manifests if manifest["kind"] == "RayJob")
    del job["spec"]["shutdownAfterJobFinishes"], job["spec"]["ttlSecondsAfterFinished"]
    faults = found(manifests)
    assert faults == [] if message is None else any(message in fault for fault in faults)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suspend": True, "shutdownAfterJobFinishes": False}, "suspend wants shutdownAfterJobFinishes: true"),
        ({"suspend": True, "clusterSelector": {"ray.io/cluster": "develop"}}, "suspend cannot go with clusterSelector"),
    ],
)
def test_a_job_that_sleeps(changes: dict[str, Any], message: str) -> None:
    manifests = overlay(LAPTOP)
    next(manifest for manifest in manifests if manifest["kind"] == "RayJob")["spec"].update(changes)
    assert any(message in fault for fault in found(manifests))


@pytest.mark.parametrize(
    ("target", "path", "value", "message"),
    [
        ("Deployment/mlflow", f"{POD}.containers.0.image", ABSENT, "container mlflow: no image"),
        ("Deployment/mlflow", f"{POD}.containers.0.image", "clsgen-dist:latest", "has no fixed version"),
        ("Deployment/mlflow", f"{POD}.containers.0.image", "host:5000/clsgen-dist", "has no fixed version"),
        ("Deployment/mlflow", f"{POD}.containers.0.readinessProbe", ABSENT, "no readinessProbe"),
        ("Deployment/mlflow", f"{POD}.containers.0.resources.limits", ABSENT, "no resources.limits.memory"),
        ("Deployment/mlflow", f"{POD}.containers.0.resources.requests.memory", "3Gi", "requests 3Gi of memory, but"),
        ("Deployment/mlflow", f"{POD}.containers.0.securityContext.privileged", True, "is privileged"),
        ("Deployment/mlflow", f"{POD}.containers.0.securityContext.capabilities", ABSENT, "keeps capabilities"),
        (
            "Deployment/mlflow",
            f"{POD}.containers.0.securityContext.readOnlyRootFilesystem",
            False,
            "write into its image",
        ),
        (
            "Deployment/mlflow",
            f"{POD}.containers.0.securityContext.allowPrivilegeEscalation",
            ABSENT,
            "may gain rights",
        ),
        ("Deployment/mlflow", f"{POD}.containers.0.volumeMounts.1.mountPath", "/other", "no volume at /tmp"),
        ("Deployment/mlflow", f"{POD}.securityContext.runAsNonRoot", False, "may run as root"),
        ("Deployment/mlflow", f"{POD}.securityContext.seccompProfile", ABSENT, "may make any system call"),
        ("Deployment/mlflow", f"{POD}.hostNetwork", True, "hostNetwork shares what belongs to the node"),
        ("Deployment/mlflow", f"{POD}.volumes.1", {"name": "tmp", "hostPath": {"path": "/"}}, "is a path of the node"),
        ("Deployment/mlflow", f"{POD}.serviceAccountName", ABSENT, "runs under the account default"),
        ("Deployment/mlflow", f"{POD}.serviceAccountName", "admin", "there is no such ServiceAccount"),
        ("Deployment/mlflow", f"{POD}.automountServiceAccountToken", ABSENT, "gets a token for the Kubernetes API"),
        ("Deployment/mlflow", f"{POD}.volumes.1.name", "temp", "mounts volume tmp at /tmp; the pod has no such volume"),
        ("Deployment/mlflow", f"{POD}.volumes.1.name", "temp", "volume temp is mounted nowhere"),
        (
            "Deployment/mlflow",
            f"{POD}.containers.0.args.4",
            "--allowed-hosts=localhost:*",
            "tracking.uri mlflow:5000: Deployment/mlflow lets in only --allowed-hosts localhost:*",
        ),
        (
            "Deployment/mlflow",
            f"{POD}.containers.0.env.0.value",
            "postgresql://mlflow@database:5432/mlflow",
            "calls database:5432; there is no Service database",
        ),
        ("PersistentVolumeClaim/workspace", "metadata.name", "place", "there is no PersistentVolumeClaim workspace"),
        ("PersistentVolumeClaim/workspace", "metadata.name", "place", "PersistentVolumeClaim/place: no pod mounts it"),
        (
            "LimitRange/clsgen-dist",
            "spec.limits.0.default.cpu",
            "1",
            "requests 2 of cpu, and the LimitRange limits it to 1",
        ),
        ("ConfigMap/run", "metadata.name", "runs", "there is no ConfigMap run"),
        ("Service/mlflow", "spec.ports.0.targetPort", 5001, "targetPort 5001: Deployment/mlflow has no such port"),
        ("Service/mlflow", "spec.selector", {"app": "mlflow"}, "its selector {'app': 'mlflow'} finds no pod"),
        ("NetworkPolicy/nothing", "spec.policyTypes", ["Egress"], "no NetworkPolicy limits its ingress"),
        ("NetworkPolicy/mlflow", "spec.ingress.0.ports.0.port", 5001, "lets Deployment/mlflow receive it, port 5000"),
        ("NetworkPolicy/mlflow", "spec.egress", [], "lets it send to StatefulSet/postgres, port 5432"),
        ("NetworkPolicy/ray", "spec.egress.1.to.0.podSelector.matchLabels", {"a": "b"}, "lets it send to Deployment"),
        (
            "ResourceQuota/clsgen-dist",
            "spec.hard",
            {"requests.cpu": "4"},
            "requests.cpu: 4, but the pods here take up to",
        ),
        ("ResourceQuota/clsgen-dist", "spec.hard", {"limits.memory": "16Gi"}, "limits.memory: 16Gi, but the pods here"),
        (
            "ResourceQuota/clsgen-dist",
            "spec.hard.persistentvolumeclaims",
            "2",
            "persistentvolumeclaims: 2, there are 3",
        ),
        (
            "Job/evaluate",
            f"{POD}.containers.0.args.2",
            "--output=/tmp/e",
            "--output /tmp/e is in no volume that is kept",
        ),
        ("Job/evaluate", f"{POD}.containers.0.args.1", "--dat=x", "--data is missing"),
    ],
)
def test_other_objects(target: str, path: str, value: Any, message: str) -> None:
    assert any(message in fault for fault in found(changed("laptop", target, path, value)))


def test_a_device_that_is_asked_for_otherwise_than_it_is_limited() -> None:
    sizes = {"requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}, "limits": {"memory": "64Gi"}}
    manifests = changed("gpu-single-node", "Job/evaluate", f"{POD}.containers.0.resources", sizes)
    assert any("nvidia.com/gpu: requests 2, limits None" in fault for fault in found(manifests))


def test_a_volume_of_one_node_for_pods_on_several() -> None:
    manifests = changed("gpu-multi-node", "PersistentVolumeClaim/workspace", "spec.accessModes", ["ReadWriteOnce"])
    assert any("4 pods share the claim workspace, which is ReadWriteOnce" in fault for fault in found(manifests))


def test_a_secret_with_its_values() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "postgres"}, "stringData": {"password": "x"}}
    assert any("holds its values" in fault for fault in found([*overlay("laptop"), secret]))


def test_a_key_that_a_configmap_lacks() -> None:
    manifests = changed(
        "laptop",
        "Job/explain",
        f"{POD}.containers.0.env.0",
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "run", "key": "other.yaml"}}},
    )
    assert any("ConfigMap run has no key other.yaml; it has run.yaml" in fault for fault in found(manifests))


def test_a_faulty_configuration_is_named_with_its_line() -> None:
    text = "run: {name: demo, output_dir: /workspace/runs}\ntask: {question: Q, labels: [a]}\n"
    faults = found(changed("laptop", "ConfigMap/run", "data", {"run.yaml": text}))
    assert any(
        fault.startswith("RayJob/train entrypoint: /etc/clsgen-dist/run.yaml:2: task.labels") for fault in faults
    )


@pytest.mark.parametrize(
    ("quantity", "value"), [("500m", 0.5), ("4Gi", 2.0**32), ("2", 2.0), (3, 3.0), ("1e3", 1000.0), ("1M", 1e6)]
)
def test_quantities(quantity: object, value: float) -> None:
    assert amount(quantity) == value


@pytest.mark.parametrize("quantity", ["four", "4GB", "", None])
def test_what_is_no_quantity(quantity: object) -> None:
    with pytest.raises(ConfigError, match="expected a quantity"):
        amount(quantity)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors(selector: dict[str, Any], expected: bool) -> None:
    assert matches(selector, {"a": "1"}) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hold no object"),
        ("a: [", "not YAML"),
        ("just words", "document 1"),
        ("kind: Job\nmetadata: {}", "apiVersion"),
    ],
)
def test_what_is_no_manifest(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_manifests(text)


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is built, a sound file passes and names the Secrets, a contradiction ends in exit code 2."""
    monkeypatch.setenv("PATH", str(KUBECTL.parent))
    assert main([str(ROOT / "k8s" / "overlays" / "laptop")]) == 0
    assert "needs the Secret postgres with password" in capsys.readouterr().out
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump_all(changed("laptop", "RayJob/train", f"{WORKERS}.rayStartParams.num-cpus", "1")))
    assert main([str(broken)]) == 2
    assert capsys.readouterr().err.startswith("RayJob/train entrypoint: train.num_workers is 2")
    monkeypatch.setattr("sys.stdin", io.StringIO(broken.read_text()))
    assert main(["-"]) == 2


def test_objects_that_fit_no_schema(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    torn = tmp_path / "torn.yaml"
    torn.write_text("apiVersion: ray.io/v1\nkind: RayJob\nmetadata: {name: t}\nspec: {rayClusterSpec: {}}\n")
    assert main([str(torn)]) == 2
    assert "does not fit its schema" in capsys.readouterr().err


def test_a_folder_that_kubectl_cannot_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(KUBECTL.parent))
    with pytest.raises(ConfigError, match="kubectl kustomize says"):
        load(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no kubectl"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.yaml")
