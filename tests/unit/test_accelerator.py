"""What memory a device has left."""

from __future__ import annotations

import subprocess
import sys

import torch

from clsgen_dist.accelerator import free_bytes
from tests.support.tiny import ROOT

GIB = 2**30


def test_a_machine_has_memory() -> None:
    assert GIB // 16 < free_bytes(torch.device("cpu")) < 2**50


def test_a_limit_of_the_process_counts() -> None:
    code = (
        "import resource, torch\n"
        "from clsgen_dist.accelerator import free_bytes\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (taken + {GIB // 32}, resource.RLIM_INFINITY))\n"
        "print(free_bytes(torch.device('cpu')))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 0 < int(found.stdout) <= GIB // 32
