"""The errors that Luthier raises on purpose, each with its remedy and a fixed exit code.

Anything else that escapes is a bug: the command line shows its traceback and saves a log.
"""

from __future__ import annotations

import errno

FULL_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The system's numbers for a file that has no place."""

FULL_DISK_TEXTS = (
    "No space left on device",
    "File too large (os error",
    "quota exceeded (os error",
    "(os error 112)",
)
"""How libraries that are not Python's say the same; the last is Windows' number for it."""


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
    """A gate refused the run: everything was measured and kept, nothing may ship. Exit code 4.

    Attributes:
        run: the id of the run that was refused, now or before; empty where a command refuses something else.
    """

    exit_code = 4

    def __init__(self, message: str, remedy: str = "", *, run: str = "") -> None:
        super().__init__(message, remedy)
        self.run = run


class PartFailed(Exception):
    """Within a worker: which component of a fused pass raised `error`; `part` counts from 0."""

    def __init__(self, part: int, error: BaseException) -> None:
        super().__init__(str(error))
        self.part = part
        self.error = error


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or a limit on files has no space left."""
    # polars and safetensors write from Rust: they tell the system's error in their text alone.
    told = isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS
    return told or any(text in str(error) for text in FULL_DISK_TEXTS)
