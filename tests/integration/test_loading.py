"""Loading under ZeRO-3: no rank ever holds the whole model, and what is put together again is what was on disk."""

from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import clsgen_dist.accelerator  # noqa: F401 - before deepspeed, which looks for GPUs
from clsgen_dist.config.sections import Lora, Model
from clsgen_dist.config.zero import read_zero
from clsgen_dist.engine.deepspeed import Engine, partitioned_loading, start_distributed
from clsgen_dist.engine.ds_config import full_ds_config
from clsgen_dist.model.build import build_model, parameter_groups
from tests.support.ranks import RankPool
from tests.support.runs import TIMEOUT_SECONDS, partitioning_zero
from tests.support.tiny import ROOT, tiny_backbone

LORA = Lora(rank=4, alpha=8.0)
_M_MMAP_THRESHOLD = -3  # of malloc.h
SHIPPED = str(ROOT / "ds_configs" / "zero3_cpu.json")


def loaded(base: str, lora: Lora | None, zero: str, *, seed: int = 5) -> tuple[Engine, Any]:
    """Model and engine, as a worker makes them."""
    ranks = start_distributed(TIMEOUT_SECONDS)
    ds_config = full_ds_config(read_zero(zero), precision="fp32", max_grad_norm=1.0, world_size=ranks.world_size)
    with partitioned_loading(ds_config):
        model = build_model(Model(name_or_path=base, lora=lora), base, 2, dtype=torch.float32, seed=seed)
    groups = parameter_groups(model, learning_rate=1e-3, head_learning_rate=1e-3, weight_decay=0.0)
    return Engine(model, groups, ds_config, betas=(0.9, 0.999), eps=1e-8), model


def shares_on_rank(base: str, lora: Lora | None, zero: str) -> dict[str, Any]:
    """What one rank has after loading: its own numbers and the whole trainable weights."""
    engine, model = loaded(base, lora, zero)
    with engine.whole("head.weight"):
        std = float(model.head.weight.detach().std())
    shares = {
        name: (tuple(p.shape), tuple(p.ds_shape), p.ds_tensor.numel(), p.requires_grad)
        for name, p in model.named_parameters()
    }
    state = {name: weight.numpy() for name, weight in engine.trainable_state().items()}
    engine.close()
    return {"head_std": std, "shares": shares, "state": state}


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_each_rank_holds_its_share(two_ranks: RankPool, tmp_path: Path, lora: Lora | None) -> None:
    base = tiny_backbone(tmp_path / "base")
    zero = partitioning_zero(tmp_path)

    found = two_ranks.run(shares_on_rank, base, lora, zero)

    plain = build_model(Model(name_or_path=base, lora=lora), base, 2, dtype=torch.float32, seed=5)
    weights = dict(plain.named_parameters())
    for rank in found:
        assert rank["head_std"] > 0
        assert rank["shares"].keys() == weights.keys()
        for name, (shape, whole, share, trainable) in rank["shares"].items():
            weight = weights[name]
            assert (whole, trainable) == (tuple(weight.shape), weight.requires_grad), name
            assert shape == (0,), f"{name} is whole on a rank"
            assert share == -(-weight.numel() // 2), name
    assert found[1]["state"] == {}
    state = found[0]["state"]
    assert state.keys() == {name for name, weight in weights.items() if weight.requires_grad}
    for name, weight in state.items():
        torch.testing.assert_close(torch.from_numpy(weight), weights[name].detach(), atol=0, rtol=0)


def memory_on_rank(base: str, lora: Lora | None) -> dict[str, int]:
    """Bytes of anonymous memory above those before loading: the most on the way, with the engine, and without it."""
    ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 65536)  # memory that is freed goes back at once
    engine, _ = loaded(base, lora, SHIPPED)  # libraries take their own memory at the first use
    engine.close()
    del engine, _
    gc.collect()
    before, most, done = anonymous_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    engine, _ = loaded(base, lora, SHIPPED)
    done.set()
    watcher.join()
    after = anonymous_bytes()
    engine.close()
    del engine, _
    gc.collect()
    return {"most": max(most, after) - before, "loaded": after - before, "closed": anonymous_bytes() - before}


def anonymous_bytes() -> int:
    """Memory of this process that stands for no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_no_rank_holds_the_whole_model(two_ranks: RankPool, tmp_path: Path) -> None:
    """A Llama of 150 MB: each of two ranks grows by little more than half of it, and shrinks again."""
    base = tiny_backbone(
        tmp_path / "base", hidden_size=512, intermediate_size=2048, num_hidden_layers=10, num_attention_heads=8
    )
    size = sum(w.numel() * w.element_size() for w in load_file(Path(base) / "model.safetensors").values())
    assert 140e6 < size < 180e6

    found = two_ranks.run(memory_on_rank, base, LORA)

    print(f"{size / 1e6:.0f} MB of weights; by rank, MB: {[{k: v // 10**6 for k, v in r.items()} for r in found]}")
    for rank in found:
        assert rank["loaded"] > 0.4 * size, "the measurement misses the weights"
        assert rank["most"] < 0.8 * size
        assert rank["closed"] < 0.2 * size
