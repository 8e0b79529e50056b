"""The errors that users meet.

    ClsGenError
    |-- ConfigError       a setting, or two settings that contradict
    |-- DataError         a row, a file of rows, a split
    |-- TeacherError      whoever writes the explanations
    |-- CheckpointError   a checkpoint that is missing, torn or of another run
    |-- BundleError       a finished model that is incomplete, altered or of another task
    |-- NumericsError     a loss, a gradient or a probability that is not a number
    |-- TrackingError     the MLflow server or its database
    `-- Interrupted       SIGTERM or Ctrl-C; nothing is wrong

Every message says what was found, what was expected and where to mend it. `assert` is for our own bugs only.
"""

from __future__ import annotations


class ClsGenError(Exception):
    """Base of all errors that are the user's to mend."""

    #: Exit code of a launcher that ends with this error.
    exit_code = 1


class ConfigError(ClsGenError):
    """A setting is unknown, of the wrong type, out of range or in contradiction with another one."""

    exit_code = 2


class DataError(ClsGenError):
    """Rows cannot be used as they are."""

    exit_code = 2


class TeacherError(ClsGenError):
    """Explanations could not be had."""


class CheckpointError(ClsGenError):
    """A checkpoint is missing, incomplete or belongs to another run."""


class BundleError(ClsGenError):
    """A bundle is missing, incomplete, altered or of another task."""

    exit_code = 2


class NumericsError(ClsGenError):
    """A number that must be finite, or equal to another one, is not."""


class TrackingError(ClsGenError):
    """The tracking server or database cannot be used."""


class Interrupted(ClsGenError):
    """The process was asked to stop. The exit code is 128 + the signal's number, as a shell has it."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, signal_number)
        self.exit_code = 128 + signal_number

    def __str__(self) -> str:
        return str(self.args[0])
