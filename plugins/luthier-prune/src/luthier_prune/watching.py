"""Running a model on calibration examples while its modules are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from luthier_models.batching import Batch, BatchedModel

Watcher = Callable[[int, tuple[Any, ...], dict[str, Any], Any], None]
"""Told of each call: the module's number, its inputs by place and by name, its output."""


@contextmanager
def watching(modules: Sequence[nn.Module], tell: Watcher) -> Iterator[None]:
    """Have calls of the modules told while this lasts."""

    def hook(number: int, _module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        tell(number, inputs, options, output)

    hooks = [each.register_forward_hook(partial(hook, n), with_kwargs=True) for n, each in enumerate(modules)]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def run(packed: BatchedModel, rows: Sequence[Batch]) -> None:
    """Compute all hidden states of the rows, for those who watch."""
    packed.model.train(False)
    with torch.inference_mode():
        for row in rows:
            packed.hidden(row)
