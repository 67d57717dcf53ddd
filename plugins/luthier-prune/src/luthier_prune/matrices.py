"""Matrices of a model as (outputs, inputs), however the family stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from torch import Tensor


def is_matrix(module: nn.Module) -> bool:
    """Whether a module multiplies by a matrix: PyTorch's linear layer, or GPT-2's."""
    return isinstance(module, nn.Linear | Conv1D)


def matrix(module: nn.Module) -> Tensor:
    """The weights of a linear layer, (outputs, inputs)."""
    weights: Any = module.weight
    found: Tensor = weights.T if isinstance(module, Conv1D) else weights
    return found
