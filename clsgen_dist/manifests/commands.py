"""Commands of pods that start a launcher, parsed as the launcher itself does, and held against what the pods have."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clsgen_dist import launch
from clsgen_dist.compare.arms import comparison_of
from clsgen_dist.config.run import RunConfig
from clsgen_dist.errors import ClsGenError
from clsgen_dist.manifests.objects import Fault, Manifest, Pod, of_kind, pods_of
from clsgen_dist.records import EvaluateRequest

#: Where the launchers and ds_configs/ of this checkout are; in an image they stand in the folder that a pod works in.
_CHECKOUT = Path(launch.__file__).parents[1]

#: What reads the command line of each launcher.
_READERS: dict[str, Callable[[Sequence[str]], object]] = {
    "calibrate.py": launch.calibrate_request,
    "compare.py": comparison_of,
    "evaluate.py": launch.evaluate_request,
    "explain.py": launch.config_of,
    "plan.py": launch.config_of,
    "predict.py": launch.predict_request,
    "ray_train.py": launch.config_of,
    "train.py": launch.config_of,
    "verbalize.py": launch.config_of,
}


@dataclass(frozen=True)
class Command:
    """One start of a launcher.

    Attributes:
        pod: where it runs; of a RayJob the head, where the driver is.
        place: for messages.
        words: the whole command.
        container: whose files it sees.
    """

    pod: Pod
    place: str
    words: tuple[str, ...]
    container: Manifest

    @property
    def launcher(self) -> str:
        return PurePosixPath(next((word for word in self.words if _is_launcher(word)), "")).name

    @property
    def options(self) -> tuple[str, ...]:
        """What follows the launcher."""
        place = next(number for number, word in enumerate(self.words) if _is_launcher(word))
        return self.words[place + 1 :]


@dataclass(frozen=True)
class Parsed:
    """A command and what its launcher makes of it: a configuration or a request."""

    command: Command
    meaning: object

    @property
    def config(self) -> RunConfig | None:
        return self.meaning if isinstance(self.meaning, RunConfig) else None

    @property
    def evaluation(self) -> EvaluateRequest | None:
        return self.meaning if isinstance(self.meaning, EvaluateRequest) else None


def launcher_commands(manifests: Sequence[Manifest]) -> list[Command]:
    """Every command that starts a launcher."""
    found = []
    for pod in pods_of(manifests):
        if pod.role == "head" and pod.owner["kind"] == "RayJob":
            words = tuple(shlex.split(str(pod.owner["spec"].get("entrypoint", ""))))
            place = f"{pod.place.removesuffix(' head')} entrypoint"
            found.append(Command(pod, place, words, pod.containers[0]))
        for container in [*pod.init_containers, *pod.containers]:
            words = (*(container.get("command") or []), *(container.get("args") or []))
            found.append(Command(pod, f"{pod.place}, container {container['name']}", tuple(map(str, words)), container))
    return [command for command in found if any(map(_is_launcher, command.words))]


def parse_commands(manifests: Sequence[Manifest]) -> tuple[list[Parsed], list[Fault]]:
    """Parses every launcher command, with the files that it would see.

    Returns:
        What could be parsed, and what is wrong with the rest.
    """
    parsed: list[Parsed] = []
    faults: list[Fault] = []
    for command in launcher_commands(manifests):
        folder = str(command.container.get("workingDir", "/"))
        started = next(word for word in command.words if _is_launcher(word))
        path = PurePosixPath(folder, started)
        if command.launcher not in _READERS or not (_CHECKOUT / "launchers" / command.launcher).is_file():
            faults.append(Fault(command.place, f"{started}: there is no such launcher"))
        elif path.parent.parent != PurePosixPath(folder):
            faults.append(Fault(command.place, f"{started} is not in {folder}, the folder that the pod works in"))
        else:
            try:
                parsed.append(Parsed(command, _meaning(command, manifests)))
            except ClsGenError as error:
                faults += [Fault(command.place, line) for line in str(error).splitlines()]
    return parsed, faults


def _meaning(command: Command, manifests: Sequence[Manifest]) -> object:
    """What the launcher makes of its words; files of ConfigMaps lie in a folder of their own meanwhile."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(_CHECKOUT):
        known = dict(_mounted_files(command, manifests))
        words = list(command.options)
        for inside, text in known.items():
            outside = Path(scratch, *PurePosixPath(inside).parts[1:])
            outside.parent.mkdir(parents=True, exist_ok=True)
            outside.write_text(text, encoding="utf-8")
            words = [_moved(word, inside, str(outside)) for word in words]
        try:
            return _READERS[command.launcher](words)
        except ClsGenError as error:
            raise type(error)(str(error).replace(scratch, "")) from None


def _mounted_files(command: Command, manifests: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    """Paths and texts of the ConfigMaps that a container has."""
    maps = {m["metadata"]["name"]: m.get("data") or {} for m in of_kind(manifests, "ConfigMap")}
    for mount in command.container.get("volumeMounts") or []:
        source = command.pod.volumes.get(mount["name"], {}).get("configMap")
        for key, text in maps.get((source or {}).get("name"), {}).items():
            yield str(PurePosixPath(mount["mountPath"], key)), text


def _moved(word: str, inside: str, outside: str) -> str:
    return word.removesuffix(inside) + outside if word == inside or word.endswith(f"={inside}") else word


def _is_launcher(word: str) -> bool:
    path = PurePosixPath(word)
    return path.parent.name == "launchers" and path.suffix == ".py"
