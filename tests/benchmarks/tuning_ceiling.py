"""The rate that matrix products reach on this machine, on the shapes that a step of LoRA has, and what a step needs.

A step's arithmetic is nearly all products of matrices. For each token, forward and backward with respect to
the input, each weight takes part in four operations (two of multiplication and addition, twice), and each
weight of an adapter in six, as it has a gradient too; the output layer's only for tokens that have a loss.
Attention, whose share depends on the length, is left out, which makes the ceiling higher and the test harder.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch

TOKENS = 512


class Ceiling:
    """Measures products in turns with whatever else is measured.

    Args:
        model: the model with LoRA layers injected.
    """

    def __init__(self, model: Any) -> None:
        self.shapes: Counter[tuple[int, int]] = Counter()
        self.per_token = 0
        for module in model.modules():
            if hasattr(module, "lora_A"):
                outputs, inputs = module.get_base_layer().weight.shape
                self.shapes[outputs, inputs] += 1
                self.per_token += 4 * outputs * inputs
                self.per_token += 6 * sum(a.weight.numel() for a in module.lora_A.values())
                self.per_token += 6 * sum(b.weight.numel() for b in module.lora_B.values())
        self.per_target = 4 * model.get_output_embeddings().weight.numel()
        self._seconds = 0.0
        self._operations = 0

    def measure(self) -> None:
        """Do each shape's products once for each layer that has it, forward and backward, on 512 tokens."""
        for (outputs, inputs), count in self.shapes.items():
            weight = torch.randn(outputs, inputs)
            x, gradient = torch.randn(TOKENS, inputs), torch.randn(TOKENS, outputs)
            started = time.process_time()
            for _ in range(count):
                torch.mm(x, weight.t())
                torch.mm(gradient, weight)
            self._seconds += time.process_time() - started
            self._operations += count * 4 * outputs * inputs * TOKENS

    @property
    def rate(self) -> float:
        """Operations per CPU second, over all that was measured."""
        return self._operations / self._seconds

    def seconds(self, tokens: int, targets: int) -> float:
        """The least that a step can take at that rate, if each token is computed."""
        return (self.per_token * tokens + self.per_target * targets) / self.rate
