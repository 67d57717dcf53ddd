"""What is known of files before one is read: asked while planning, so without a heavy library."""

from __future__ import annotations

import codecs
from pathlib import PurePath

from luthier import InputError

JSONL = ("**/*.jsonl", "**/*.jsonl.gz")
"""The files that `jsonl` reads of a directory."""


def check_pattern(pattern: str) -> None:
    """Check that a pattern of files stays below the directory, and is one.

    Raises:
        InputError: otherwise.
    """
    path = PurePath(pattern)
    if ".." in path.parts:
        raise InputError(f"the pattern {pattern!r} leaves the directory", "Name the directory above with `path`.")
    # What follows is refused by some versions of Python and understood by others.
    if path.is_absolute() or not path.parts or any("**" in part and part != "**" for part in path.parts):
        raise InputError(f"{pattern!r} is no pattern of files", "Write one relative to `path`, such as **/*.txt.")


def check_encoding(encoding: str) -> None:
    """Check that Python knows an encoding of text.

    Raises:
        InputError: otherwise.
    """
    try:
        known = codecs.lookup(encoding)
    except (LookupError, ValueError):
        raise InputError(
            f"no encoding is called {encoding!r}", "Use a name that Python knows: utf-8, cp1252, …"
        ) from None
    if not known._is_text_encoding:
        raise InputError(f"{encoding!r} is no encoding of text", "Use a name such as utf-8 or cp1252.")
