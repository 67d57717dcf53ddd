"""trl's checkpoints, made safe against a kill: each is sealed when it is whole, and only sealed ones are used."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from luthier_tune.checkpoint import Progress

SEAL = "progress.json"
_PREFIX = "checkpoint-"


def seal(directory: Path, progress: Progress) -> None:
    """Mark the checkpoint of the progress's step as whole, then remove the others.

    Its files are flushed before, so that the mark never outlives them.
    """
    checkpoint = directory / f"{_PREFIX}{progress.step}"
    for path in checkpoint.rglob("*"):
        if path.is_file():
            _flush(path)
    temporary = checkpoint / f"{SEAL}.new"
    temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    _flush(temporary)
    temporary.replace(checkpoint / SEAL)
    _remove(directory, except_for=checkpoint)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def find_checkpoint(directory: Path) -> tuple[Path, Progress] | None:
    """The newest whole checkpoint with how far it is, if there is one; what is not whole is removed."""
    sealed = [path.parent for path in directory.glob(f"{_PREFIX}*/{SEAL}")]
    newest = max(sealed, key=lambda path: int(path.name.removeprefix(_PREFIX)), default=None)
    _remove(directory, except_for=newest)
    if newest is None:
        return None
    return newest, Progress(**json.loads((newest / SEAL).read_text(encoding="utf-8")))


def _remove(directory: Path, *, except_for: Path | None) -> None:
    for path in directory.glob(f"{_PREFIX}*"):
        if path != except_for:
            shutil.rmtree(path)
