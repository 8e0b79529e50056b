"""The thread that brings a journal to MLflow while training goes on."""

from __future__ import annotations

import logging
import threading
import time

from clsgen_dist.tracking.courier import Courier
from clsgen_dist.tracking.service import is_locked_out, is_refusal, reason_of

_LOG = logging.getLogger("clsgen_dist.tracking")

_SECONDS_BETWEEN_SENDS = 5.0
#: Pauses after failures in a row: 1, 2, 4, ... seconds, up to this.
_LONGEST_PAUSE_SECONDS = 60.0
#: How long the end of a run waits for MLflow when nothing gets through; less where nothing did before.
_PATIENCE_SECONDS, _LITTLE_PATIENCE_SECONDS = 4.0, 1.0
#: The same for a database in a file, which is never away, but slow where the machine or its other users are busy.
_PATIENCE_WITH_A_FILE_SECONDS = 30.0
_PAUSE_AT_THE_END_SECONDS = 0.5


class Delivery:
    """Sends a journal in the background, again and again until it is through."""

    def __init__(self, courier: Courier, uri: str, *, is_local: bool) -> None:
        """Starts the thread.

        Args:
            courier: sends.
            uri: for messages.
            is_local: whether MLflow is a database in a file: any failure to open that is one for good.
        """
        self.refusal: Exception | None = None
        self._courier, self._uri, self._is_local = courier, uri, is_local
        self._changed = threading.Condition()
        self._num_failures = 0
        self._is_starting, self._is_told = True, False
        self._is_asked = self._is_closing = self._is_stopped = False
        self._num_attempts = 0
        self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)
        self._thread.start()

    def wait_for_first_attempt(self, seconds: float) -> None:
        """Waits until the run is there, or an attempt at it failed, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_attempts > 0, seconds)
            self._is_starting = False
            if self._num_attempts == 0:
                self._tell(f"no answer within {seconds:.0f} s")

    def wake(self) -> None:
        """Has what is there sent now rather than in some seconds; an outage is not asked sooner."""
        with self._changed:
            self._is_asked = True
            self._changed.notify_all()

    def close(self) -> bool:
        """Waits while the rest gets through, and no longer than some seconds when nothing does.

        Returns:
            Whether the thread ended; one that waits for an answer ends when that comes, or with the process.
        """
        with self._changed:
            self._is_closing = self._is_asked = True
            self._changed.notify_all()
        patience = _LITTLE_PATIENCE_SECONDS if self._is_told else _PATIENCE_SECONDS
        if self._is_local:
            patience = _PATIENCE_WITH_A_FILE_SECONDS
        moves, since = self._courier.moves, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < patience:
            self._thread.join(0.05)
            if self._courier.moves != moves or self._courier.is_uploading:
                moves, since = self._courier.moves, time.monotonic()
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join(0.05)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._is_stopped:
            is_last = self._is_closing
            try:
                self._courier.advance()
                if is_last:
                    self._courier.send_left()
            except Exception as error:  # noqa: BLE001 - whatever a store raises must not end the sending
                self._failed(error)
            else:
                self._went_well()
                if is_last and self._courier.is_done:
                    return
            self._pause()

    def _pause(self) -> None:
        with self._changed:
            if self._is_stopped:
                return
            if self._is_closing:
                self._changed.wait_for(lambda: self._is_stopped, _PAUSE_AT_THE_END_SECONDS)
            elif self._num_failures:
                seconds = min(_LONGEST_PAUSE_SECONDS, 2.0 ** (self._num_failures - 1))
                self._changed.wait_for(lambda: self._is_closing or self._is_stopped, seconds)
            else:
                self._changed.wait_for(lambda: self._is_asked or self._is_stopped, _SECONDS_BETWEEN_SENDS)
            self._is_asked = False

    def _failed(self, error: Exception) -> None:
        with self._changed:
            self._num_attempts += 1
            self._num_failures += 1
            for_good = self._is_local or is_refusal(error) or is_locked_out(error)
            if self._is_starting and for_good and not self._courier.is_open:
                self.refusal, self._is_stopped = error, True
            else:
                self._tell(reason_of(error))
            self._changed.notify_all()

    def _went_well(self) -> None:
        with self._changed:
            self._num_attempts += 1
            self._num_failures = 0
            if self._is_told:
                self._is_told = False
                _LOG.warning("MLflow at %s answers again", self._uri)
            self._changed.notify_all()

    def _tell(self, reason: str) -> None:
        """One message an outage."""
        if not self._is_told:
            self._is_told = True
            _LOG.warning("MLflow at %s: %s; the run goes on, and what it tells waits in its folder", self._uri, reason)
