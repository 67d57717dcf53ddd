"""Which models are served, and by which names, from what the user typed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier import Champion, InputError, find_champion, find_model
from luthier_serve.champion import spec_of
from luthier_serve.processes import ModelSpec

CHAMPION = "champion"


@dataclass(frozen=True)
class Found:
    """A model that is to be served.

    Attributes:
        spec: what loads it.
        champion: which it is, if that is what was asked for; None for a model that stays.
    """

    spec: ModelSpec
    champion: Champion | None = None


def find_models(
    names: Sequence[str],
    *,
    home: Path | None,
    runtime: str | None,
    parameters: Mapping[str, Any],
    device: str,
    plugins: Sequence[Path],
    threads: int | None,
) -> dict[str, Found]:
    """The models, by the names that clients know them by.

    Raises:
        InputError: if one is not there or damaged, or two have the same name.
    """
    loading = ModelSpec(
        path="",
        kind="",
        form="",
        hash="",
        runtime=runtime,
        parameters=parameters,
        device=device,
        plugins=tuple(str(path.absolute()) for path in plugins),
        threads=threads or cores(),
    )
    found: dict[str, Found] = {}
    for name in names:
        known = public_name(name)
        if known in found:
            raise InputError(f"two models would be called {known!r}", "Name each once; rename a directory.")
        found[known] = _find(name, home, loading)
    return found


def _find(name: str, home: Path | None, loading: ModelSpec) -> Found:
    if name == CHAMPION or name.startswith(f"{CHAMPION}:"):
        champion = find_champion(name, home=home)
        return Found(spec_of(champion, loading), champion)
    model = find_model(name, home=home)
    path = str(model.path.absolute())
    return Found(replace(loading, path=path, kind=model.kind, form=model.form, hash=model.identity()))


def public_name(name: str) -> str:
    """What clients call a model: the last part of a path, which is nobody's business, or what the user typed."""
    return Path(name).absolute().name if os.path.exists(name) else name


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
