"""Loads a model in this process: for the processes of plugins that have one in memory and do nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.artifacts import Generator, Model, OnnxModel
from luthier.components import Component
from luthier.context import Context
from luthier.locations import fetch


def load_generator(
    runtime: Component,
    model: Model | OnnxModel,
    room: Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Generator:
    """Load a model with a runtime.

    Args:
        runtime: what loads it; `Registry.runtime_for` finds it.
        model: the model.
        room: a directory of its own for as long as the model is in use.
        parameters: of the runtime, as a recipe's `runtime: {name: …, …}` has them.
        device: where it runs: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        InputError: what the runtime has to say of the model.
        ConfigurationError: if it has no such parameters.
    """
    ctx = Context(
        seed=0,
        output=room,
        checkpoint=room,
        notes=room,
        emit=lambda message: None,
        fetch=fetch,
        device=device,
        name=runtime.name,
    )
    inputs = {model.kind: model, "ctx": ctx}
    generator: Generator = runtime.function(
        *(inputs[name] for name in runtime.inputs), **runtime.arguments(parameters or {})
    )
    return generator
