"""Pods of a manifest as processes: namespaces of their own for network, mounts, processes and host name.

What a pod says of its containers holds: environment, folder to work in, volumes at their places, a root file system
that is read only, a user without rights. The image is put together from this checkout and its environment, at the
places that k8s/Dockerfile has them. Needs root, and does not build or pull anything.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from dockerfile_parse import DockerfileParser

from clsgen_dist.manifests.objects import Manifest, Pod, environment
from tests.support.tiny import ROOT

#: What k8s/Dockerfile copies into the folder that pods work in.
_COPIED = ("launchers", "ds_configs", "examples", "k8s/wait_for.py")
_NODE = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
#: Addresses in a network that nobody else sees; the first is the head's.
ADDRESSES = ("10.244.0.1", "10.244.0.2")


def missing() -> str | None:
    """Why pods cannot be started here; None where they can."""
    if os.geteuid() != 0:
        return "namespaces of pods need root"
    tools = "command -v unshare nsenter setpriv chroot ip mount >/dev/null"
    probe = f"{tools} && unshare --net --mount --pid --uts --ipc --fork ip link add dev eth0 type veth peer name eth1"
    tried = subprocess.run(["sh", "-c", probe], capture_output=True, text=True, timeout=30)
    return f"no namespaces or veth devices here: {tried.stderr.strip()}" if tried.returncode else None


@contextlib.contextmanager
def two_networks() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces, with one of ADDRESSES each, that see each other and nothing else."""
    names = (f"clsgen-head-{os.getpid()}", f"clsgen-work-{os.getpid()}")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names):
            _ip("-n", name, "addr", "add", f"{ADDRESSES[number]}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
            _ip("-n", name, "route", "add", "default", "via", ADDRESSES[1 - number])
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@dataclass
class Machine:
    """Where pods run.

    Attributes:
        folder: holds what pods leave behind, a folder each; `workspace` and other claims beside them.
        hosts: names that pods can look up, with their addresses.
        config_maps: files by name of the ConfigMap.
    """

    folder: Path
    hosts: Mapping[str, str]
    config_maps: Mapping[str, Mapping[str, str]]
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, name: str, pod: Pod, network: str, command: Sequence[str], **variables: str
    ) -> subprocess.Popen[bytes]:
        """Starts the first container of a pod with a command; its output goes to `log(name)`.

        Args:
            name: of the pod, and its host name.
            pod: whose volumes, user and first container count.
            network: a network namespace.
            command: what runs in it.
            variables: environment beside that of image and container, as an operator adds it.
        """
        home = self.folder / name
        (home / "root").mkdir(parents=True)
        script = "\n".join(self._script(name, home, pod, command, variables))
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--fork"]
        # A pod ends with the tests, even when they are killed.
        entered = ["setpriv", "--pdeathsig=KILL", "nsenter", f"--net=/run/netns/{network}"]
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                [*entered, "unshare", *spaces, "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def terminate(self, process: subprocess.Popen[bytes]) -> None:
        """Tells a pod to end, as Kubernetes does before it kills it: SIGTERM to its first process."""
        for first in psutil.Process(process.pid).children():
            first.terminate()

    def end(self) -> None:
        """Ends all that was started: the first process of a pod takes the others of its namespace along."""
        for process in self._started:
            with contextlib.suppress(psutil.NoSuchProcess):
                for first in psutil.Process(process.pid).children():
                    first.kill()
        for process in self._started:
            process.kill()
            process.wait()

    def _script(
        self, name: str, home: Path, pod: Pod, command: Sequence[str], variables: Mapping[str, str]
    ) -> Iterator[str]:
        container, root = pod.containers[0], home / "root"
        user = pod.spec["securityContext"]
        ids = (user["runAsUser"], user["runAsGroup"])
        yield "set -eu"
        yield f"hostname {name}"
        yield f"mount -t tmpfs -o mode=755,size=64m pod {root}"
        for path in map(Path, ("/usr", "/dev", "/sys", "/bin", "/lib", "/lib64", "/sbin")):
            if path.is_symlink():
                yield f"ln -s {path.readlink()} {root}{path}"
            elif path.is_dir():
                yield from _bound(root, path, path)
        yield from self._etc(root, name, ids)
        for part in _COPIED:
            yield from _bound(root, ROOT / part, Path(container["workingDir"], part))
        yield from _bound(root, Path(sys.prefix).resolve(), Path("/opt/venv"))
        yield from _bound(root, ROOT / "clsgen_dist", Path("/opt/package/clsgen_dist"))
        for mount in container["volumeMounts"]:
            yield from self._volume(root, home, pod.volumes[mount["name"]], mount, ids)
        # Where the scripts of the environment expect their Python, and where that expects its library.
        shebang = (Path(sys.prefix) / "bin" / "ray").read_text(encoding="utf-8").split("\n", 1)[0]
        for path in (Path(shebang.removeprefix("#!")).parents[1], Path(sys.base_prefix)):
            if not path.is_relative_to("/usr"):
                yield from _bound(root, path, path)
        yield f"mkdir {root}/proc && mount -t proc proc {root}/proc"
        if container["securityContext"]["readOnlyRootFilesystem"]:
            yield f"mount -o remount,ro {root}"
        image = _image_environment()
        known = {**image, **environment(container), **variables, "PYTHONPATH": "/opt/package", "OMP_NUM_THREADS": "1"}
        # A pod ends with the process that started it, even one that is killed; `unshare --kill-child` forgets it here,
        # since the kernel does when the user changes.
        rights = (
            f"setpriv --reuid={ids[0]} --regid={ids[1]} --clear-groups --no-new-privs --bounding-set=-all "
            "--pdeathsig=KILL"
        )
        words = shlex.join([*(f"{key}={value}" for key, value in known.items()), *command])
        yield f"exec chroot {root} {rights} env -i -C {container['workingDir']} {words}"

    def _etc(self, root: Path, name: str, ids: tuple[int, int]) -> Iterator[str]:
        yield f"mkdir -p {root}/etc"
        for part in ("ld.so.cache", "nsswitch.conf", "ssl", "localtime", "mime.types"):
            if Path("/etc", part).exists():
                yield f"cp -rL /etc/{part} {root}/etc/"
        files = {
            "passwd": f"root:x:0:0::/root:/bin/sh\nclsgen:x:{ids[0]}:{ids[1]}::/home/clsgen:/bin/sh",
            "group": f"root:x:0:\nclsgen:x:{ids[1]}:",
            "hosts": "\n".join(f"{a} {n}" for n, a in {"localhost": "127.0.0.1", **self.hosts}.items()),
        }
        for file, text in files.items():
            yield f"printf '%s\\n' {shlex.quote(text)} > {root}/etc/{file}"

    def _volume(self, root: Path, home: Path, volume: Manifest, mount: Manifest, ids: tuple[int, int]) -> Iterator[str]:
        place = Path(mount["mountPath"])
        empty: dict[str, Any] | None = volume.get("emptyDir")
        if empty is not None and empty.get("medium") == "Memory":
            size = str(empty["sizeLimit"]).removesuffix("i")
            yield f"mkdir -p {root}{place} && mount -t tmpfs -o mode=1777,size={size} shm {root}{place}"
            return
        if empty is not None:
            source = home / volume["name"]
        elif "configMap" in volume:
            source = home / volume["name"]
            source.mkdir()
            for file, text in self.config_maps[volume["configMap"]["name"]].items():
                (source / file).write_text(text, encoding="utf-8")
        else:
            source = self.folder / volume["persistentVolumeClaim"]["claimName"]
        source.mkdir(exist_ok=True)
        os.chown(source, *ids)
        yield from _bound(root, source, place)
        if mount.get("readOnly"):
            yield f"mount -o remount,bind,ro {root}{place}"


def _bound(root: Path, source: Path, place: Path) -> Iterator[str]:
    """Commands that show a file or folder of this machine at a place of a pod."""
    target = shlex.quote(f"{root}{place}")
    made = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p $(dirname {target}) && touch {target}"
    yield f"{made} && mount --rbind {shlex.quote(str(source))} {target}"


def _image_environment() -> dict[str, str]:
    """What the last stage of k8s/Dockerfile sets."""
    parser = DockerfileParser(str(ROOT / "k8s" / "Dockerfile"), env_replace=False)
    return {name: value.replace("$PATH", _NODE["PATH"]) for name, value in parser.envs.items()} | {"LANG": "C.UTF-8"}
