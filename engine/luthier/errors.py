"""The errors that Luthier raises on purpose, each with its remedy and a fixed exit code.

Anything else that escapes is a bug: the command line shows its traceback and saves a log.
"""

from __future__ import annotations


class LuthierError(Exception):
    """Something went wrong that we can explain.

    `message` says what and where, in one line where possible; `remedy` says what to do about it. `part` is the
    place of the component in a fused pass that it is of; None outside of one, and where it is not known.
    """

    exit_code = 1
    part: int | None = None

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class InputError(LuthierError):
    """The user's input (recipe, data, model, environment) cannot be used as it is. Exit code 1."""


class PluginError(LuthierError):
    """A plugin broke its contract, or failed in a way that is its own. Exit code 3."""

    exit_code = 3


class WorkerError(LuthierError):
    """A worker process died, hung or ran out of memory. Exit code 3."""

    exit_code = 3


class GateRefused(LuthierError):
    """A gate refused the run: everything was measured and kept, nothing may ship. Exit code 4."""

    exit_code = 4


class PartFailed(Exception):
    """Within a worker: which component of a fused pass raised `error`; `part` counts from 0."""

    def __init__(self, part: int, error: BaseException) -> None:
        super().__init__(str(error))
        self.part = part
        self.error = error
