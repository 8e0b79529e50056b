"""Who predicts windows of rows: one process, or the actors of a cluster, each of which does the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from clsgen_dist.bundle import load_bundle
from clsgen_dist.config.predict import Predict
from clsgen_dist.predict.predictor import Answered, Predictor
from clsgen_dist.records import Prediction, Row


class Window(NamedTuple):
    """Rows that follow one another in the input; batches are made within a window.

    Attributes:
        number: of the window, from 0.
        rows: of the window.
        known: predictions of an earlier process, see `Predictor.stream`.
    """

    number: int
    rows: list[Row]
    known: Mapping[int, Prediction]


#: Told what a batch of a window brought, and after the last one None.
Heard = Callable[[int, Answered | None], None]


class Crew(Protocol):
    """Predicts windows; they may end in another order than they come."""

    def work(self, windows: Iterator[Window], heard: Heard) -> None: ...


@dataclass(frozen=True)
class Job:
    """What predicting takes: where the model is, and the settings.

    Attributes:
        bundle: its folder.
        base: folder of the base model where it has moved, or None.
        settings: of predict.
    """

    bundle: Path
    base: str | None
    settings: Predict


class LocalCrew:
    """This process."""

    def __init__(self, job: Job) -> None:
        """Loads the model. Raises BundleError."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bundle = load_bundle(job.bundle, device=device, base=job.base)
        self._settings = job.settings
        self._predictor = Predictor(bundle, job.settings.token_budget, job.settings.max_new_tokens, device)

    def work(self, windows: Iterator[Window], heard: Heard) -> None:
        """See `Crew`."""
        num_explained = 0 if self._settings.explain == "none" else None
        for window in windows:
            for answered in self._predictor.stream(
                window.rows,
                num_explained=num_explained,
                margin=self._settings.uncertain_margin,
                known=window.known,
            ):
                heard(window.number, answered)
            heard(window.number, None)
