"""What a run must remember beside weights and optimizer state: a few numbers, since the batch plan is a function."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class TrainState:
    """Progress of a run.

    Attributes:
        step: optimizer steps done, skipped ones included.
        tokens_seen: tokens read by all ranks.
        best_step: step of the lowest validation loss so far, or -1.
        best_loss: that loss, in nats; infinite before the first look.
        num_skipped: steps among them that updated nothing, since their loss or gradient was no finite number.
    """

    step: int = 0
    tokens_seen: int = 0
    best_step: int = -1
    best_loss: float = float("inf")
    num_skipped: int = 0

    def after_step(self, num_tokens: int, *, skipped: bool = False) -> TrainState:
        return replace(
            self,
            step=self.step + 1,
            tokens_seen=self.tokens_seen + num_tokens,
            num_skipped=self.num_skipped + skipped,
        )

    def after_validation(self, loss: float) -> TrainState:
        """Notes a validation loss; the earlier step stays best where two are equal."""
        return replace(self, best_step=self.step, best_loss=loss) if loss < self.best_loss else self

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
