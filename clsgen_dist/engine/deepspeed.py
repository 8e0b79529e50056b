"""DeepSpeed, seen from outside: forward, backward, step. The only importer of deepspeed.

Knows parameters and losses, not what model they belong to.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import clsgen_dist.accelerator  # noqa: F401 - before deepspeed, which looks for GPUs by itself, aloud

# isort: split
import deepspeed
import torch
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from clsgen_dist.config.zero import zero_stage
from clsgen_dist.engine.collectives import Ranks, current_ranks
from clsgen_dist.engine.fragments import Fragment, fragments, optimizer_steps, restore

deepspeed.utils.logger.setLevel(logging.ERROR)
# On CPUs DeepSpeed would compile a shared-memory collective for two minutes at the first start; gloo serves as well.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def start_distributed(timeout_seconds: int) -> Ranks:
    """Joins the process group of the launcher, or the one that Ray has made already.

    A process that no launcher started is a group of one.
    """
    if not torch.distributed.is_initialized():
        for name, alone in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
            os.environ.setdefault(name, alone)
        if "MASTER_PORT" not in os.environ:
            os.environ["MASTER_PORT"] = str(_free_port())
    timeout = datetime.timedelta(seconds=timeout_seconds)
    deepspeed.init_distributed(auto_mpi_discovery=False, timeout=timeout, verbose=False)
    return current_ranks()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def partitioned_loading(ds_config: Mapping[str, Any]) -> Iterator[None]:
    """Inside, transformers hands every weight to ZeRO-3 as it is read, so no rank holds the whole model."""
    if zero_stage(dict(ds_config)) < 3:
        yield
        return
    keep_alive = HfDeepSpeedConfig(dict(ds_config))  # transformers holds it by a weak reference
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del keep_alive


class StepReport(NamedTuple):
    """What an update did.

    Attributes:
        grad_norm: global norm before clipping; infinite where a gradient was not finite.
        applied: False where the update was left out for that reason.
    """

    grad_norm: float
    applied: bool


class Engine:
    """A model under ZeRO, one optimizer step at a time."""

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        ds_config: dict[str, Any],
        *,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """Partitions the model and builds AdamW over `groups`, which carry their peak learning rates."""
        offloaded = "offload_optimizer" in ds_config["zero_optimization"]
        fused = torch.cuda.is_available() and not offloaded
        optimizer = torch.optim.AdamW(groups, betas=betas, eps=eps, fused=fused)
        self._peaks = [float(group["lr"]) for group in groups]
        self._names = [str(group["name"]) for group in groups]
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=ds_config, dist_init_required=False
        )
        self._partitioned = zero_stage(ds_config) == 3
        self._world_size = torch.distributed.get_world_size()
        self._trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}

    @property
    def module(self) -> nn.Module:
        return self._engine.module  # type: ignore[no-any-return]

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The model's forward pass."""
        return self._engine(*inputs, **options)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Adds to the gradient; with `last` reduces it over ranks.

        ZeRO averages over ranks, while `loss` is already a share of the whole step, so it is scaled back up.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self._world_size, scale_wrt_gas=False)
        if not last:
            self._engine.step()  # counts the micro-batch, updates nothing

    def step(self, factors: Mapping[str, float]) -> StepReport:
        """Updates the weights with each group's peak learning rate times the factor of its name.

        A gradient that is not finite leaves the weights as they are.
        """
        for group, peak, name in zip(self._optimizer.param_groups, self._peaks, self._names, strict=True):
            group["lr"] = peak * factors[name]
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return StepReport(float("inf") if norm is None else float(norm), self._engine.was_step_applied())

    def drop_gradient(self) -> None:
        """Forgets what `backward` has added."""
        self._engine.zero_grad()
        self._optimizer.zero_grad()
        if not self._partitioned:  # ZeRO-2 keeps what it has reduced elsewhere, and would add to it
            self._optimizer.averaged_gradients = dict.fromkeys(self._optimizer.averaged_gradients)
            self._optimizer.all_grad_tensors = dict.fromkeys(self._optimizer.all_grad_tensors)
            self._optimizer.micro_step_id = -1

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """Trainable weights as they are used, whole, on the CPU. All ranks call it; only rank 0 gets them.

        Source: a collective gather, since a partitioned parameter that is read directly is empty.
        """
        state: dict[str, torch.Tensor] = {}
        for name, parameter in self._trainable.items():  # one at a time: no rank holds a second whole model
            with self._whole([parameter]):
                if torch.distributed.get_rank() == 0:
                    state[name] = parameter.detach().to("cpu", copy=True).contiguous()
        return state

    def whole(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """Inside, the named trainable parameter is whole on every rank."""
        return self._whole([self._trainable[name]])

    def _whole(self, parameters: list[nn.Parameter]) -> contextlib.AbstractContextManager[Any]:
        if not self._partitioned:
            return contextlib.nullcontext()
        return deepspeed.zero.GatheredParameters(parameters, modifier_rank=None)  # type: ignore[no-any-return]

    def fragments(self) -> Iterator[Fragment]:
        """This rank's share of trainable weights and optimizer state, as views that may be written to."""
        return fragments(self._engine.optimizer, self._trainable, torch.distributed.get_rank())

    def shapes(self) -> dict[str, list[int]]:
        """Shape of each trainable parameter, whole."""
        return {name: list(getattr(p, "ds_shape", p.shape)) for name, p in self._trainable.items()}

    def optimizer_steps(self) -> int:
        """Updates that the optimizer has counted."""
        return optimizer_steps(self._engine.optimizer)

    def restored(self, num_steps: int) -> None:
        """Takes on what was written into `fragments`, after so many updates. All ranks call it."""
        restore(self._engine.optimizer, num_steps)

    def close(self) -> None:
        """Frees the memory of weights, gradients and optimizer; the model cannot be used any more.

        DeepSpeed leaves cycles behind that Python's collector does not see, so what is large is let go piece by piece.
        """
        parameters, zero = list(self._engine.module.parameters()), self._engine.optimizer
        self._engine.destroy()
        for parameter in parameters:
            if hasattr(parameter, "ds_tensor"):
                parameter.ds_tensor.data = parameter.ds_tensor.new_empty(0)
            parameter.data, parameter.grad = parameter.new_empty(0), None
        self._optimizer.state.clear()
        vars(zero).clear()
