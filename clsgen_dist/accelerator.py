"""Tells DeepSpeed, before anything imports it, that this machine has no GPU; else it guesses, and says so aloud.
Knows what memory a device has left.

peft and transformers import DeepSpeed too, so whoever imports one of the three imports this first.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; of CPUs the least of the machine's, the container's and the process's own."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")  # a container's own limit
    with contextlib.suppress(OSError, ValueError):  # "max" where there is none
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        free = min(free, max(0, limit - int((group / "memory.current").read_text(encoding="ascii"))))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]  # of this process alone, as `ulimit -v` sets it
    if limit != resource.RLIM_INFINITY:
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        free = min(free, max(0, limit - taken))
    return free
