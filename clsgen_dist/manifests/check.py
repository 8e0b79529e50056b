"""All rules over a stream of manifests."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from clsgen_dist.errors import ConfigError
from clsgen_dist.manifests.commands import parse_commands
from clsgen_dist.manifests.network import network_faults
from clsgen_dist.manifests.objects import Fault, Manifest, read_manifests
from clsgen_dist.manifests.pods import pod_faults
from clsgen_dist.manifests.ray import ray_faults
from clsgen_dist.manifests.references import reference_faults
from clsgen_dist.manifests.runs import calls_of, run_faults


def check(manifests: Sequence[Manifest]) -> list[Fault]:
    """Every broken rule, in the order of the rules.

    Args:
        manifests: the objects.

    Raises:
        ConfigError: an object lacks what its schema demands, so that no rule can be read off it.
    """
    try:
        parsed, unparsed = parse_commands(manifests)
        faults = [
            *pod_faults(manifests),
            *ray_faults(manifests),
            *reference_faults(manifests),
            *unparsed,
            *run_faults(manifests, parsed),
            *network_faults(manifests, calls_of(parsed)),
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"an object does not fit its schema ({type(error).__name__}: {error}); kubectl apply --dry-run=server says "
            "which and where"
        ) from None
    return list(dict.fromkeys(faults))


def load(source: Path) -> list[Manifest]:
    """The objects of a file, or of a folder with a kustomization.yaml.

    Raises:
        ConfigError: it cannot be read, or kubectl cannot build it.
    """
    if not source.is_dir():
        try:
            return read_manifests(source.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: cannot be read ({error})") from None
    try:
        built = subprocess.run(["kubectl", "kustomize", str(source)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError(
            f"{source} is a folder, and there is no kubectl to build it; give a file of built manifests"
        ) from None
    if built.returncode:
        raise ConfigError(f"{source}: kubectl kustomize says: {built.stderr.strip()}")
    return read_manifests(built.stdout)
