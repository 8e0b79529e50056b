"""One start of `startup.py`, in its own process, which ends where the first step would begin.

python benchmarks/startup_side.py libraries|begin|again|tried CONFIG BACKBONE RESULT.json
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Parts:
    """Wall and processor seconds of parts of a start, by name."""

    def __init__(self, result: Path) -> None:
        self._result, self._seconds = result, dict[str, list[float]]()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            wall, used = time.perf_counter(), time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self._seconds[name] = [time.perf_counter() - wall, time.process_time() - used]

        return watched

    def end(self, *_: Any) -> None:
        """Writes down what passed since the process was started, and ends it."""
        found = {"wall": time.time() - float(os.environ["CLSGEN_STARTED"]), "cpu": time.process_time()}
        self._result.write_text(json.dumps(found | {"parts": self._seconds}), encoding="utf-8")
        os._exit(0)


def libraries(parts: Parts, config: str, backbone: str) -> None:
    """What a script with these libraries waits for before it can take a step, written in the plainest way."""
    settings = json.loads(Path(config).read_text(encoding="utf-8"))

    def imports() -> None:
        import deepspeed  # noqa: F401
        import mlflow  # noqa: F401
        import peft  # noqa: F401
        import pyarrow.parquet  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401

    parts.timed("imports", imports)()
    import deepspeed
    import mlflow
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load() -> Any:
        AutoTokenizer.from_pretrained(backbone)
        dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[settings["train"]["precision"]]
        return AutoModelForCausalLM.from_pretrained(backbone, dtype=dtype)

    def initialize(model: Any) -> None:
        zero = json.loads(Path(settings["train"]["deepspeed"]).read_text(encoding="utf-8"))
        # The launcher would say so; without the shared-memory kernels, which would be compiled now.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        os.environ.update(alone)
        deepspeed.init_distributed("gloo", verbose=False)
        adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        settings_of_zero = zero | {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": settings["train"]["precision"] == "bf16"},
            "zero_force_ds_cpu_optimizer": False,
        }
        deepspeed.initialize(model=model, optimizer=adam, config=settings_of_zero)

    def begin() -> None:
        mlflow.set_tracking_uri(f"sqlite:///{Path(config).with_suffix('.db')}")
        mlflow.start_run()

    model = parts.timed("tokenizer and weights", load)()
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    model = parts.timed("adapter", get_peft_model)(model, adapter)
    parts.timed("ZeRO", initialize)(model)
    parts.timed("MLflow run", begin)()
    parts.end()


def run(parts: Parts, config: str) -> None:
    """launchers/train.py, as one process, to its first step."""
    from clsgen_dist import launch

    launch.quiet_console()
    settings = launch.config_of(["--config", config])

    def imports() -> Any:
        from clsgen_dist import pipeline

        return pipeline

    pipeline: Any = parts.timed("imports", imports)()
    from clsgen_dist import worker
    from clsgen_dist.progress import silent

    watched = {
        "rows and tokens": (pipeline, "prepare"),
        "process group": (pipeline, "start_distributed"),
        "MLflow run": (pipeline, "open_tracker"),
        "weights and adapter": (worker, "build_model"),
        "ZeRO": (worker, "Engine"),
        "look at causality": (worker, "check_causal"),
        "estimate of memory": (worker, "decided"),
        "dry batch": (worker, "check_fits"),
    }
    for name, (place, attribute) in watched.items():
        setattr(place, attribute, parts.timed(name, getattr(place, attribute)))
    worker.Stepper.run = parts.end  # type: ignore[method-assign]
    pipeline.run_launched(settings, silent)


def main() -> None:
    side, config, backbone, result = sys.argv[1:5]
    parts = Parts(Path(result))
    if side == "libraries":
        libraries(parts, config, backbone)
    run(parts, config)


if __name__ == "__main__":
    main()
