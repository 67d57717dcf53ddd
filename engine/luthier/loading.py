"""Loads a model in this process: for the processes of plugins that have one in memory and do nothing else."""

from __future__ import annotations

from pathlib import Path

from luthier.artifacts import Generator, Model, OnnxModel
from luthier.components import Component
from luthier.context import Context


def load_generator(runtime: Component, model: Model | OnnxModel, room: Path, *, device: str = "auto") -> Generator:
    """Load a model with a runtime as it is without settings.

    Args:
        runtime: what loads it; `Registry.runtime_for` finds it.
        model: the model.
        room: a directory of its own for as long as the model is in use.
        device: where it runs: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        InputError: what the runtime has to say of the model.
    """
    ctx = Context(
        seed=0,
        output=room,
        checkpoint=room,
        notes=room,
        emit=lambda message: None,
        fetch=Path,
        device=device,
        name=runtime.name,
    )
    inputs = {model.kind: model, "ctx": ctx}
    generator: Generator = runtime.function(*(inputs[name] for name in runtime.inputs), **runtime.arguments({}))
    return generator
