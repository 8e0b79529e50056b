"""Tells DeepSpeed, before anything imports it, that this machine has no GPU; else it guesses, and says so aloud.

peft and transformers import DeepSpeed too, so whoever imports one of the three imports this first.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
