"""trl's checkpoints, made safe against a kill: each is sealed when it is whole, and only sealed ones are used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier import LuthierError
from luthier_tune.checkpoint import Progress, difference, explained_full_disk, warn_of_unused

SEAL = "progress.json"
_PREFIX = "checkpoint-"


def seal(directory: Path, progress: Progress, configuration: Mapping[str, Any]) -> None:
    """Mark the checkpoint of the progress's step as whole, then remove the others.

    Its files are flushed before, so that the mark never outlives them.

    Args:
        directory: where the checkpoints are.
        progress: how far the training is.
        configuration: what it was made with, as JSON: a checkpoint of another one is not used.
    """
    checkpoint = directory / f"{_PREFIX}{progress.step}"
    for path in checkpoint.rglob("*"):
        if path.is_file():
            _flush(path)
    temporary = checkpoint / f"{SEAL}.new"
    content = {"progress": asdict(progress), "configuration": configuration}
    temporary.write_text(json.dumps(content), encoding="utf-8")
    _flush(temporary)
    temporary.replace(checkpoint / SEAL)
    _remove(directory, except_for=checkpoint)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def find_checkpoint(directory: Path, configuration: Mapping[str, Any]) -> tuple[Path, Progress] | None:
    """The newest whole checkpoint with how far it is, if there is one; what is not whole is removed.

    One that was made with another configuration is named in the log, and removed.
    """
    sealed = [path.parent for path in directory.glob(f"{_PREFIX}*/{SEAL}")]
    newest = max(sealed, key=lambda path: int(path.name.removeprefix(_PREFIX)), default=None)
    content = json.loads((newest / SEAL).read_text(encoding="utf-8")) if newest else {}
    unfit = difference(content["configuration"], configuration) if newest else ""
    if newest and unfit:
        warn_of_unused(newest, unfit)
        newest = None
    _remove(directory, except_for=newest)
    return (newest, Progress(**content["progress"])) if newest else None


@contextmanager
def room_needed(directory: Path) -> Iterator[None]:
    """For what writes a checkpoint: on a full disk, what was written is removed, and the last checkpoint stays.

    Raises:
        LuthierError: if the disk is full.
    """
    try:
        with explained_full_disk("a checkpoint", directory):
            yield
    except LuthierError:
        for path in directory.glob(f"{_PREFIX}*"):
            if not (path / SEAL).is_file():
                shutil.rmtree(path)
        raise


def _remove(directory: Path, *, except_for: Path | None) -> None:
    for path in directory.glob(f"{_PREFIX}*"):
        if path != except_for:
            shutil.rmtree(path)
