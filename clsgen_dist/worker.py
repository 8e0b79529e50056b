"""What one rank does to train, top to bottom."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from clsgen_dist.bundle import load_bundle, write_bundle
from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.splits import text_hash
from clsgen_dist.data.store import stored_rows
from clsgen_dist.data.tokens import TokenizedSplit, load_tokenizer, row_tokenizer
from clsgen_dist.engine.checkpoint import CheckpointWriter
from clsgen_dist.engine.collectives import Ranks, agreed_signal
from clsgen_dist.engine.deepspeed import Engine, partitioned_loading
from clsgen_dist.engine.ds_config import full_ds_config
from clsgen_dist.engine.loading import load_newest
from clsgen_dist.engine.places import Place, SharedFolder
from clsgen_dist.errors import BundleError, Interrupted
from clsgen_dist.model.attention import FLASH
from clsgen_dist.model.build import DTYPES, build_model, check_causal, parameter_groups
from clsgen_dist.objective import Weights, class_weights
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.records import EXPLAINED_SPLITS
from clsgen_dist.sealed import read_manifest
from clsgen_dist.stopping import StopRequest
from clsgen_dist.train import schedule
from clsgen_dist.train.automatic import decided
from clsgen_dist.train.best import find_best, keep_best
from clsgen_dist.train.dry_batch import check_fits
from clsgen_dist.train.general import open_general_text
from clsgen_dist.train.loop import Events, train
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import Stepper, Validation, validate
from clsgen_dist.train.verdicts import read_verdicts

#: Differences that a reloaded model may show in a probability, by precision: mean over rows, and largest. In bf16 the
#: same sum in another order differs in the third digit: one model read in batches of other sizes differs by 0.002 in
#: the mean and by up to 0.039 in a row (Gemma 3 270M, e-SNLI). Other weights differ in the mean.
TOLERANCE = {"fp32": (1e-5, 1e-5), "bf16": (1e-2, 1e-1)}
#: The same where words give the probability. Logits of a vocabulary in bf16 come in steps of an eighth from 16 on.
TOLERANCE_OF_WORDS = {"fp32": (1e-5, 1e-5), "bf16": (2e-2, 2e-1)}


def train_bundle(
    config: RunConfig,
    folder: RunFolder,
    base: str,
    ranks: Ranks,
    events: Events,
    warn: Callable[[str], None] = lambda message: None,
    stop: StopRequest | None = None,
    place: Place | None = None,
) -> None:
    """Trains, or goes on training, and writes a verified bundle. All ranks call it.

    A bundle that stands is left as it is: the run was trained to the end before. `warn` hears on rank 0 of checkpoints
    that were passed over or could not be written. `place` is that of the checkpoints, by default the run folder.

    Raises:
        Interrupted: a rank was asked to stop; a checkpoint of the last step stands.
        CheckpointError, NumericsError, ConfigError: see the modules that do the work.
        BundleError: the bundle, reloaded, gives other probabilities than the model that was trained.
    """
    if ranks.from_leader(_is_finished(folder) if ranks.leads else None):
        return
    split = TokenizedSplit(folder.tokens("train"))
    looked_at = TokenizedSplit(folder.tokens("validation"))
    zero = json.loads(folder.zero.read_text(encoding="utf-8"))
    config = decided(config, base, split, ranks, zero)
    num_steps = schedule.total_steps(config.train, len(split))
    interval = schedule.validation_interval(config.train, num_steps)
    weights = _loss_weights(config, split)
    general = open_general_text(config, folder.tokens("general"), base, ranks)
    place = place or SharedFolder(folder.checkpoints, ranks)
    writer = CheckpointWriter(
        place,
        ranks,
        keep=config.train.keep_checkpoints,
        background=config.checkpoint.background,
        required=config.checkpoint.required,
        warn=warn,
    )
    stop = stop or StopRequest()
    with _engine(config, zero, base, ranks) as engine, stop.held():
        state = _state_to_go_on_from(engine, ranks, folder, place, warn)
        if config.train.dry_batch and state.step < num_steps:
            check_fits(
                engine,
                ranks,
                split,
                weights,
                seed=config.run.seed,
                global_batch=config.train.global_batch,
                token_budget=config.train.token_budget,
                one_line=_one_line(config),
            )
        skips = config.train.max_skipped_steps if config.train.on_nonfinite == "skip" else 0
        stepper = Stepper(
            engine,
            ranks,
            split,
            weights,
            general,
            seed=config.run.seed,
            global_batch=config.train.global_batch,
            token_budget=config.train.token_budget,
            one_line=_one_line(config),
            factors=lambda step: schedule.learning_rate_factors(config.train, step, num_steps),
            name_rows=lambda rows: _row_ids(folder.rows("train"), rows),
            num_skips_left=max(0, skips - state.num_skipped),
        )
        state = train(
            state,
            num_steps,
            run_step=stepper.run,
            validate=lambda: _look(config, base, engine, ranks, looked_at, weights),
            keep_best=lambda state, validation: keep_best(engine, ranks, folder.best, place, state, validation),
            save=lambda state: writer.save(engine, state.step, state.to_dict()),
            validation_due=lambda step: schedule.is_due(step, interval, num_steps),
            checkpoint_due=lambda step: schedule.is_due(step, config.train.checkpoint_steps, num_steps),
            stop_wanted=lambda: agreed_signal(ranks, stop) is not None,
            events=events,
        )
        writer.settle()
    if state.step < num_steps:
        number = agreed_signal(ranks, stop)
        assert number is not None, "only a signal ends training early"
        raise Interrupted(f"after step {state.step}, its checkpoint is written; the same command goes on there", number)
    if ranks.leads:
        _write_and_verify(config, folder, base, ranks.device)
    ranks.barrier()


def _state_to_go_on_from(
    engine: Engine, ranks: Ranks, folder: RunFolder, place: Place, warn: Callable[[str], None]
) -> TrainState:
    """Weights, optimizer and best step of the newest whole checkpoint; the beginning where there is none."""
    found = load_newest(engine, ranks, place, warn)
    return TrainState() if found is None else find_best(ranks, folder.best, place, TrainState(**found), warn)


def _look(
    config: RunConfig, base: str, engine: Engine, ranks: Ranks, split: TokenizedSplit, weights: Weights
) -> Validation:
    """A look at validation rows, through the head or, where none is trained, through the words of the verdicts."""
    one_line, token_budget = _one_line(config), config.train.token_budget
    most = config.train.max_validation_rows
    found = validate(engine, ranks, split, weights, max_rows=most, token_budget=token_budget, one_line=one_line)
    if weights.w_cls > 0:
        return found
    verdicts = row_tokenizer(load_tokenizer(config.model, base), config.task, config.data).verdicts
    return read_verdicts(engine, ranks, split, verdicts, found, token_budget=token_budget, one_line=one_line)


def _one_line(config: RunConfig) -> bool:
    """Flash attention skips what stands between packed rows; the other kernels only mask it."""
    return config.model.attention == FLASH


def keep_untrained(config: RunConfig, folder: RunFolder, base: str, ranks: Ranks) -> None:
    """Writes a bundle of the backbone as it is, to see what it knows without training. All ranks call it.

    Its adapter changes nothing. Its head is random, so `objective.w_cls` must be 0: then the words of the verdicts
    give the probabilities.
    """
    assert config.objective.w_cls == 0, "a random head would give the probabilities"
    if ranks.leads and not _is_finished(folder):
        dtype = DTYPES[config.train.precision]
        # Its weights are written and nothing else: no kernels are chosen, and no pass has activations.
        only_weights = {"attention": "sdpa", "liger_kernels": False}
        only_weights |= {"gradient_checkpointing": "none", "activation_offload": False}
        settings = config.model.model_copy(update=only_weights)
        model = build_model(settings, base, config.num_labels, dtype=dtype, seed=config.run.seed)
        weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        write_bundle(folder.bundle, config, base, weights, np.zeros(0, dtype=np.uint64))
    ranks.barrier()


def _is_finished(folder: RunFolder) -> bool:
    if not folder.bundle.exists():
        return False
    read_manifest(folder.bundle)
    return True


def _loss_weights(config: RunConfig, split: TokenizedSplit) -> Weights:
    counts = np.bincount(split.labels[split.labels >= 0], minlength=config.num_labels).tolist()
    settings = config.objective
    return Weights(
        w_cls=settings.w_cls,
        w_gen=settings.w_gen,
        kl_weight=settings.kl_weight,
        label_smoothing=settings.label_smoothing,
        class_weights=class_weights(settings.class_weights, counts),
    )


@contextlib.contextmanager
def _engine(config: RunConfig, zero: dict[str, Any], base: str, ranks: Ranks) -> Iterator[Engine]:
    """The model under ZeRO, checked; its memory is free again afterwards."""
    ds_config = full_ds_config(
        zero,
        precision=config.train.precision,
        max_grad_norm=config.train.max_grad_norm,
        world_size=ranks.world_size,
    )
    with partitioned_loading(ds_config):
        model = build_model(
            config.model, base, config.num_labels, dtype=DTYPES[config.train.precision], seed=config.run.seed
        )
    engine = Engine(
        model,
        parameter_groups(
            model,
            learning_rate=config.train.learning_rate,
            head_learning_rate=config.train.head_learning_rate,
            weight_decay=config.train.weight_decay,
        ),
        ds_config,
        betas=(config.train.adam_betas[0], config.train.adam_betas[1]),
        eps=config.train.adam_eps,
    )
    with engine.whole("head.weight") as _:
        assert float(model.head.weight.detach().float().std()) > 0, "the head was not initialised"
    check_causal(model)
    try:
        yield engine
    finally:
        engine.close()
        del engine, model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _write_and_verify(config: RunConfig, folder: RunFolder, base: str, device: torch.device) -> None:
    """Writes the bundle, opens it as a user would, and compares it with the model that was trained."""
    weights = load_file(folder.best / "trainable.safetensors")
    live_NK = np.load(folder.best / "logits.npy", allow_pickle=False)
    candidate = folder.path / "bundle.unverified"
    shutil.rmtree(candidate, ignore_errors=True)
    write_bundle(candidate, config, base, weights, _texts_seen(folder))
    bundle = load_bundle(candidate, device=device, trust_remote_code=config.model.trust_remote_code)
    predictor = Predictor(bundle, config.predict.token_budget, config.predict.max_new_tokens, device)
    rows = [row for row, _ in zip(stored_rows(folder.rows("validation")), live_NK, strict=False)]
    reloaded_NK = np.array([p.logits for p in predictor.predict(rows, num_explained=0)])
    check_reloaded(candidate, live_NK, reloaded_NK, config.train.precision, reads_verdicts=bundle.reads_verdicts)
    os.replace(candidate, folder.bundle)


def check_reloaded(
    candidate: Path, live_NK: np.ndarray, reloaded_NK: np.ndarray, precision: str, *, reads_verdicts: bool
) -> None:
    """Compares logits of N rows and K labels. Raises BundleError where their probabilities are too far apart."""
    most = (TOLERANCE_OF_WORDS if reads_verdicts else TOLERANCE)[precision]
    difference_NK = np.abs(IDENTITY.apply(live_NK) - IDENTITY.apply(reloaded_NK))
    found = float(difference_NK.mean()), float(difference_NK.max())
    if not (found[0] <= most[0] and found[1] <= most[1]):
        raise BundleError(
            f"{candidate}: reloaded, the model's probabilities differ from the trained one's by {found[0]:.2e} in the "
            f"mean and {found[1]:.2e} at most ({most[0]:.0e} and {most[1]:.0e} are allowed in {precision}); the bundle "
            "is not released"
        )


def _row_ids(path: Path, rows: list[int]) -> list[str]:
    ids = pq.read_table(path, columns=["id"])["id"]
    return [ids[row].as_py() for row in rows]


def _texts_seen(folder: RunFolder) -> np.ndarray:
    """Hashes of the texts that weights or the choice of a step depend on."""
    rows = (row for split in EXPLAINED_SPLITS for row in stored_rows(folder.rows(split)))
    return np.unique(np.fromiter((text_hash(row.text) for row in rows), dtype=np.uint64))
