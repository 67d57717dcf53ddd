"""What a benchmark does where a part of it fails: it tells, and goes on with the others."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator


@contextlib.contextmanager
def noted(what: str, failures: list[str]) -> Iterator[None]:
    """Do a part of a benchmark; where it fails, print the traceback and add it to the failures.

    Args:
        what: the part, for people.
        failures: those of the whole benchmark, for its summary and its exit code.
    """
    try:
        yield
    except Exception as error:  # Whatever it is: hours of the others must not be lost by it.
        traceback.print_exc()
        failures.append(f"{what}: {type(error).__name__}: {error}")
        print(f"FAILED {failures[-1]}", flush=True)
