"""What is told of an error from one process to another: expected ones in a line, others with their traceback."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.errors import InputError, LuthierError, PartFailed, is_full_disk

BUG = "This is a bug in the plugin, or in Luthier."


def _is_out_of_memory(error: BaseException) -> bool:
    # PyTorch's allocators raise RuntimeErrors of their own.
    texts = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )


def failure(error: BaseException, plugins: Sequence[Path] = ()) -> dict[str, Any]:
    """The message that tells the parent of an error: expected ones in a line, others with their traceback."""
    if isinstance(error, PartFailed):
        return {**failure(error.error, plugins), "part": error.part}
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, LuthierError):
        return {
            "type": "error",
            "message": error.message,
            "remedy": error.remedy,
            "exit_code": error.exit_code,
            "refused": isinstance(error, InputError),
            "detail": detail,
        }
    if _is_out_of_memory(error):
        return {
            "type": "error",
            "message": f"out of memory: {error}".rstrip(": "),
            "remedy": "Lower the batch size or --jobs, or free memory.",
            "exit_code": 1,
            "detail": detail,
        }
    if is_full_disk(error):
        return {
            "type": "error",
            "message": f"no space left on the disk: {error}",
            "remedy": "Free space (`luthier store du`, `luthier store gc`) and run again: finished steps are kept.",
            "exit_code": 1,
            "detail": detail,
        }
    return {
        "type": "error",
        "message": f"{type(error).__name__}: {error}{_where(error, plugins)}",
        "remedy": BUG,
        "exit_code": 3,
        "detail": detail,
    }


def _where(error: BaseException, plugins: Sequence[Path]) -> str:
    """The line of a plugin that an error passed through last, else where it was raised.

    Most errors are raised in a library that the plugin calls, where its author can do nothing about them.
    """
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if any(Path(frame.filename).is_relative_to(plugin) for plugin in plugins)]
    told = (inside or frames)[-1:]
    return f" at {told[0].filename}:{told[0].lineno}" if told else ""


class _Elsewhere(Exception):
    """The traceback of an error that was raised in another process, as the cause of the one that tells it here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def as_error(message: Mapping[str, Any]) -> LuthierError:
    """The error that `failure` told of, to be raised in this process."""
    error = (InputError if message.get("refused") else LuthierError)(message["message"], message["remedy"])
    error.exit_code = message["exit_code"]
    error.__cause__ = _Elsewhere(message["detail"])
    return error
