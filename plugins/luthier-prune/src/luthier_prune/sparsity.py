"""Sparsity: single weights set to zero, by their size alone or times the norm of their input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from luthier import InputError
from luthier_prune.layouts import layout_of
from luthier_prune.matrices import is_matrix, matrix
from luthier_prune.rebuilding import count_parameters, rebuilt
from luthier_prune.watching import run, watching

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier_models.batching import Batch, BatchedModel

PERCENT = 100


class Sparsity:
    """The weights of a model's layers, in hundredths; a `luthier_prune.course.Cut`.

    Args:
        model: the model.
        method: `wanda` or `magnitude`.
        pattern: `unstructured`, or `N:M`: N of each M neighbouring inputs stay.

    Raises:
        InputError: if the family is not known, or the pattern does not fit a matrix.
    """

    title = "weights"
    unit = "percent"
    total = PERCENT
    removable = PERCENT - 1

    def __init__(self, model: PreTrainedModel, method: str, pattern: str) -> None:
        self._model = model
        layout = layout_of(model)
        self._matrices = {
            f"{layout.layers}.{number}.{name}": module
            for number, block in enumerate(layout.blocks(model))
            for name, module in block.named_modules()
            if is_matrix(module)
        }
        self._inputs_first = layout.inputs_first
        self._wanda = method == "wanda"
        self._pattern = None if pattern == "unstructured" else tuple(map(int, pattern.split(":")))
        for name, module in self._matrices.items():
            inputs = matrix(module).shape[1]
            if self._pattern and inputs % self._pattern[1]:
                raise InputError(
                    f"{name} has {inputs} inputs, no multiple of {self._pattern[1]}, as the pattern {pattern} wants it",
                    "Use `pattern: unstructured`.",
                )
        self._norms: dict[str, Tensor] = {}

    def parameters(self, removed: int) -> int:
        """Those that are not zero."""
        zeros = 0
        for module in self._matrices.values():
            groups, size = self._compared(matrix(module)).shape
            zeros += groups * (size * removed // PERCENT)
        return count_parameters(self._model) - zeros

    def rank(self, packed: BatchedModel, rows: Sequence[Batch]) -> None:
        """Measure the norm of each input of each matrix over all tokens, which magnitude does without."""
        if not self._wanda:
            return
        names, modules = list(self._matrices), list(self._matrices.values())

        def measure(number: int, inputs: tuple[Any, ...], _options: dict[str, Any], _output: Any) -> None:
            squares = inputs[0].flatten(0, -2).float().square().sum(0).double()
            before = self._norms.get(names[number])
            self._norms[names[number]] = squares if before is None else before + squares

        with watching(modules, measure):
            run(packed, rows)
        self._norms = {name: squares.sqrt().float() for name, squares in self._norms.items()}

    def pruned(self, removed: int) -> PreTrainedModel:
        """The model with so many hundredths of each matrix zero."""
        weights = self._model.state_dict()
        for name, module in self._matrices.items():
            zeroed = matrix(module).masked_fill(self._goes(name, matrix(module), removed), 0)
            weights[f"{name}.weight"] = (zeroed.T if self._inputs_first else zeroed).contiguous()
        return rebuilt(self._model, copy.deepcopy(self._model.config), weights)

    def table(self, removed: int) -> pl.DataFrame:
        """The share of zeros in each matrix."""
        rows = []
        for name, module in self._matrices.items():
            values = matrix(module)
            rows.append({"matrix": name, "zeros": float(self._goes(name, values, removed).float().mean())})
        return pl.DataFrame(rows)

    def _goes(self, name: str, values: Tensor, removed: int) -> Tensor:
        """Which weights become zero, (outputs, inputs)."""
        scores = values.detach().float().abs()
        if self._wanda:
            scores = scores * self._norms[name]
        if self._pattern:
            kept, of = self._pattern
            return _smallest(scores.view(len(scores), -1, of), of - kept).flatten(1)
        compared = self._compared(scores)
        return _smallest(compared, compared.shape[1] * removed // PERCENT).view_as(scores)

    def _compared(self, values: Tensor) -> Tensor:
        """A matrix as groups of weights that are compared: those of one output for Wanda, else all of them."""
        return values if self._wanda else values.reshape(1, -1)


def _smallest(scores: Tensor, count: int) -> Tensor:
    """Which of each last dimension's scores are the `count` smallest."""
    places = scores.argsort(dim=-1, stable=True)[..., :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, places, True)
