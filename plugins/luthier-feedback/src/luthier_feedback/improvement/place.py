"""Where things are on this machine: the store, the recipe's name and champion, and the locks of a recipe's rounds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

import luthier
from luthier import InputError

DIRECTORY = "improve"
"""Of the store: a directory for each recipe's locks and logs."""
PLUGIN_DIRECTORY = "plugins.d"


def home_of(recipe: Path, home: Path | None) -> Path:
    """The store's directory, as `luthier run RECIPE` finds it."""
    chosen = home or os.environ.get("LUTHIER_HOME")
    return Path(chosen).expanduser().absolute() if chosen else recipe.absolute().parent / ".luthier"


def name_of(recipe: Path) -> str:
    """The name of a recipe that `luthier.plan` has accepted."""
    return str(YAML(typ="safe", pure=True).load(recipe.read_text(encoding="utf-8-sig"))["name"])


def champion_of(name: str, home: Path) -> luthier.Champion | None:
    """The champion of a name; None where there is none.

    Raises:
        InputError: if its pointer is damaged; that another one's is matters to nobody here.
    """

    def damaged(other: str, error: InputError) -> None:
        if other == name:
            raise error

    return next((each for each in luthier.list_champions(home=home, damaged=damaged) if each.name == name), None)


def told_plugins(recipe: Path, named: Sequence[Path]) -> list[Path]:
    """The one-file plugins that a promotion tells besides those of the working directory: the recipe's, the named."""
    beside = recipe.absolute().parent / PLUGIN_DIRECTORY
    own = [] if beside.parent == Path.cwd() else sorted(beside.glob("[!_]*.py"))
    return [*own, *named]


def directory_for(home: Path, name: str) -> Path:
    """The directory of a recipe's locks and logs; two names never share one, not even where case counts for nothing.

    Raises:
        InputError: if it cannot be made.
    """
    letters = "".join(each if each.isalnum() else "-" for each in name)[:60]
    path = home / DIRECTORY / f"{letters}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}", f"Mend the permissions of {home}.") from error
    return path


@contextmanager
def alone(path: Path, what: str, remedy: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file until the block ends or the process dies.

    Args:
        path: the file; it is never removed, since whoever waits for it would hold a lock that nobody sees.
        what: what the other one does, for the error.
        remedy: what to do about it.
        wait: for the other to end.

    Raises:
        InputError: if another holds it, or it cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise InputError(what, remedy) from None
    except OSError as error:
        raise InputError(f"{path} cannot be locked: {error}", f"Mend the permissions of {path.parent}.") from error
    try:
        yield
    finally:
        lock.release()
