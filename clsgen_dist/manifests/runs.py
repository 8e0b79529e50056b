"""Rules between a run configuration and the pods that carry it out: slots, folders, models, addresses, retries."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from clsgen_dist.config.run import RunConfig
from clsgen_dist.manifests.commands import Parsed
from clsgen_dist.manifests.network import Call, calls_in
from clsgen_dist.manifests.objects import (
    Fault,
    Manifest,
    Pod,
    amount,
    environment,
    gpus_of,
    pods_of,
    resources,
)

_ROWS = (".jsonl", ".json", ".csv", ".parquet", ".txt")


def calls_of(parsed: Sequence[Parsed]) -> list[Call]:
    """Addresses that configurations name, as calls of the pods that use them."""
    found = []
    for one in parsed:
        if one.config is None:
            continue
        own = [pod for pod in _group_of(one) if pod.is_ray_node or pod.role == "plain"]
        names = [one.config.tracking.uri] if one.command.launcher in ("ray_train.py", "train.py") else []
        names += [one.config.explain.base_url] if one.config.explain.teacher == "endpoint" else []
        found += [call for pod in own for name in names if name for call in calls_in(pod, name)]
    return found


def run_faults(manifests: Sequence[Manifest], parsed: Sequence[Parsed]) -> Iterator[Fault]:
    """All contradictions between configurations and pods."""
    folders = {}
    for one in parsed:
        config, place = one.config, one.command.place
        if config is None:
            continue
        group = _group_of(one)
        if one.command.launcher == "ray_train.py":
            folders[str(config.folder)] = place
            yield from _slot_faults(place, config, group)
            yield from _retry_faults(place, config, group)
            yield from _host_faults(place, config, manifests)
        yield from _path_faults(place, config, [pod for pod in group if pod.role != "submitter"])
    for one in parsed:
        request = one.evaluation
        if request is not None and folders and str(request.bundle.parent) not in folders:
            yield Fault(
                one.command.place, f"--bundle {request.bundle}: the trained run stands in {', '.join(sorted(folders))}"
            )
        if request is not None and not _is_kept(one.command.pod, str(request.output)):
            yield Fault(one.command.place, f"--output {request.output} is in no volume that is kept")


def _group_of(one: Parsed) -> list[Pod]:
    """The pods that carry a command out: all of its Ray cluster, or its own."""
    pod = one.command.pod
    return pods_of([pod.owner]) if pod.role != "plain" else [pod]


def _slot_faults(place: str, config: RunConfig, group: Sequence[Pod]) -> Iterator[Fault]:
    workers = [pod for pod in group if pod.role == "worker"]
    wanted = config.train.num_workers
    num_gpus = sum(gpus_of(pod) * _replicas(pod) for pod in workers)
    if num_gpus:
        if wanted > num_gpus:
            yield Fault(
                place, f"train.num_workers is {wanted}, the worker pods have {num_gpus} GPU(s); the job would wait"
            )
        elif wanted < num_gpus:
            yield Fault(
                place, f"train.num_workers is {wanted}, the worker pods have {num_gpus} GPUs; some would be idle"
            )
        for pod in workers:
            if _cpus(pod) < config.ray.cpus_per_worker * gpus_of(pod):
                yield Fault(
                    pod.place,
                    f"{_cpus(pod):g} CPUs for {gpus_of(pod)} workers of ray.cpus_per_worker "
                    f"{config.ray.cpus_per_worker:g}; the job would wait",
                )
        return
    slots = sum(int(_cpus(pod) // config.ray.cpus_per_worker) * _replicas(pod) for pod in workers)
    if wanted > slots:
        yield Fault(
            place,
            f"train.num_workers is {wanted}, the worker pods have {slots} CPU slot(s) of ray.cpus_per_worker "
            f"{config.ray.cpus_per_worker:g}; the job would wait",
        )


def _replicas(pod: Pod) -> int:
    """Pods that there are from the start."""
    return int((pod.group or {}).get("replicas", 1))


def _cpus(pod: Pod) -> float:
    """CPUs that a pod tells Ray of; KubeRay takes the limit, else the request, where nothing is said."""
    said = ((pod.group or {}).get("rayStartParams") or {}).get("num-cpus")
    container = pod.containers[0]
    asked = resources(container, "limits").get("cpu") or resources(container, "requests").get("cpu", "0")
    return float(said) if said is not None else amount(asked)


def _retry_faults(place: str, config: RunConfig, group: Sequence[Pod]) -> Iterator[Fault]:
    """A new cluster goes on from a checkpoint in the run's folder: there must be one, and all pods must see it."""
    for pod in group:
        if pod.is_ray_node and config.run.storage is None and not _is_kept(pod, str(config.folder)):
            yield Fault(
                pod.place,
                f"run.output_dir {config.run.output_dir} is in no volume that is kept; the run ends with the pod",
            )
    if group[0].owner["spec"].get("backoffLimit", 0) > 0 and config.train.checkpoint_steps is None:
        yield Fault(place, "backoffLimit starts new clusters, and train.checkpoint_steps null lets each begin anew")


def _path_faults(place: str, config: RunConfig, group: Sequence[Pod]) -> Iterator[Fault]:
    data = config.data
    named = {f"data.{name}": getattr(data, name) for name in ("train", "validation", "calibration", "test")}
    named["data.general_text"] = data.general_text
    named["model.name_or_path"] = config.model.name_or_path
    for setting, value in named.items():
        if value is None:
            continue
        if value.startswith("/"):
            for pod in group:
                if not _is_kept(pod, value):
                    yield Fault(pod.place, f"{setting} {value} is in no volume that is kept")
        elif value.endswith(_ROWS) or "*" in value or value.startswith("."):
            yield Fault(place, f"{setting} {value} would be looked for in the image; give the path in a volume")
        elif any(_is_offline(pod) for pod in group):
            yield Fault(
                place,
                f"{setting} {value} is a name on the Hub and HF_HUB_OFFLINE is 1; give a folder, or let pods online",
            )


def _is_offline(pod: Pod) -> bool:
    return any(environment(container).get("HF_HUB_OFFLINE") == "1" for container in pod.containers)


def _is_kept(pod: Pod, path: str) -> bool:
    """Whether a path is in a claim that the first container mounts for writing."""
    for mount in pod.containers[0].get("volumeMounts") or []:
        kept = "persistentVolumeClaim" in pod.volumes.get(mount["name"], {})
        if kept and PurePosixPath(path).is_relative_to(mount["mountPath"]):
            return True
    return False


def _host_faults(place: str, config: RunConfig, manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """MLflow answers only requests that name a host of its list, which replaces its own one."""
    host = urlsplit(config.tracking.uri or "").netloc
    if not host:
        return
    for pod in pods_of(manifests):
        for container in pod.containers:
            words = [*(container.get("command") or []), *(container.get("args") or [])]
            if "mlflow" not in words:
                continue
            lists = [word.partition("=")[2] for word in words if word.startswith("--allowed-hosts=")]
            allowed = [name.strip() for name in ",".join(lists).split(",")]
            if not any(fnmatch.fnmatch(host, name) for name in allowed):
                yield Fault(place, f"tracking.uri {host}: {pod.place} lets in only --allowed-hosts {','.join(allowed)}")
