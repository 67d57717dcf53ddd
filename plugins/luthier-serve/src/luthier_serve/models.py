"""Which models are served, and by which names, from what the user typed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from luthier import InputError, find_model
from luthier_serve.processes import ModelSpec


def find_models(
    names: Sequence[str], *, home: Path | None, runtime: str, device: str, plugins: Sequence[Path], threads: int | None
) -> dict[str, ModelSpec]:
    """The models, by the names that clients know them by.

    Raises:
        InputError: if one is not there, or two have the same name.
    """
    found: dict[str, ModelSpec] = {}
    for name in names:
        known = public_name(name)
        if known in found:
            raise InputError(f"two models would be called {known!r}", "Name each once; rename a directory.")
        model = find_model(name, home=home)
        found[known] = ModelSpec(
            path=str(model.path.absolute()),
            kind=model.kind,
            form=model.form,
            hash=model.identity(),
            runtime=runtime,
            device=device,
            plugins=tuple(str(path.absolute()) for path in plugins),
            threads=threads or cores(),
        )
    return found


def public_name(name: str) -> str:
    """What clients call a model: the last part of a path, which is nobody's business, or what the user typed."""
    return Path(name).absolute().name if os.path.exists(name) else name


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
