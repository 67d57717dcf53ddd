"""Adapters that are trained against integers: LoRA whose forward pass rounds the merged weight.

The product is that of the integers which the merged weight W + sBA will become, on a grid that is found anew as the
adapter moves; gradients pass through the rounding as if it were not there (the straight-through estimator: Bengio,
Léonard and Courville, arXiv:1308.3432). To round W alone and add BA in floating point, as QLoRA does
(arXiv:2305.14314), would train another model than the one that is shipped: rounding the sum moves the weights again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from luthier import InputError
from luthier_models.grids import METHODS, quantize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import LoraConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from luthier_tune.options import Quantization

_BITS = 4


class QuantizedLinear(LoraLinear):
    """A linear layer with one adapter, whose product is that of the merged weight in integers.

    Args:
        quantization: the grids.
        arguments: those of peft's layer.
        options: those of peft's layer.
    """

    def __init__(self, *arguments: Any, quantization: Quantization, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._quantization = quantization
        # The weight of the integers, after the adapter's matrices that it was made of. (Versions of tensors would not
        # do to know them by: torch's fused AdamW leaves a parameter's as it was.)
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        if self.merged or self.disable_adapters:
            merged: Tensor = super().forward(x, *arguments, **options)
            return merged
        (name,) = self.active_adapters
        bias = cast("Tensor | None", self.get_base_layer().bias)
        product = linear(x, self._weight(name), bias)
        if not torch.is_grad_enabled():
            return product
        # Nothing in value; its gradients are those of A and B, as of the rounded weight's straight-through.
        a, b = self._matrices(name)
        low = linear(linear(x.detach(), a), b) * self.scaling[name]
        straight: Tensor = product + (low - low.detach())
        return straight

    def _matrices(self, name: str) -> tuple[Tensor, Tensor]:
        """A and B of the adapter."""
        return cast("tuple[Tensor, Tensor]", (self.lora_A[name].weight, self.lora_B[name].weight))

    def _weight(self, name: str) -> Tensor:
        """What the integers stand for, (outputs, inputs); found once for each step of the optimizer."""
        a, b = self._matrices(name)
        if self._kept is None or not (torch.equal(self._kept[0], a) and torch.equal(self._kept[1], b)):
            chosen = self._quantization
            # A tensor of the inference mode, in which a validation may run, could not be trained with afterwards.
            with torch.inference_mode(mode=False), torch.no_grad():
                merged = cast("Tensor", self.get_base_layer().weight) + cast("Any", self).get_delta_weight(name)
                rounded = quantize(merged, METHODS[chosen.method], _BITS, chosen.block_size).values()
                self._kept = a.detach().clone(), b.detach().clone(), rounded.to(merged.dtype)
        return self._kept[2]


def use_integers(config: LoraConfig, quantization: Quantization) -> None:
    """Let peft make these layers of a model's linear ones."""
    # Of peft's interface for layers of one's own, which it calls experimental; a test holds it to what is merged.
    config._register_custom_module({torch.nn.Linear: partial(QuantizedLinear, quantization=quantization)})  # type: ignore[dict-item]


def check_quantizable(base: PreTrainedModel, layers: Mapping[str, nn.Module]) -> None:
    """Refuse models whose products no quantizer makes integers of after the export.

    Raises:
        InputError: saying what to leave out.
    """
    if base.config.is_encoder_decoder or any(isinstance(layer, Conv1D) for layer in layers.values()):
        raise InputError(
            f"`quantization` is for decoders that `export: genai` and `quantize: int4` take, not {type(base).__name__}",
            "Leave it out.",
        )
