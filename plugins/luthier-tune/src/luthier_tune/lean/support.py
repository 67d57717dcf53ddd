"""Which models the lean path computes as they compute themselves, and why not the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import LlamaModel, MistralModel, Qwen2Model, Qwen3Model
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from luthier_models import attention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from transformers import PreTrainedModel

DECODERS = (LlamaModel, MistralModel, Qwen2Model, Qwen3Model)
NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def obstacle(model: PreTrainedModel) -> str | None:
    """Why the model must take the plain path; None if it need not."""
    return next(_obstacles(model), None)


def _obstacles(model: PreTrainedModel) -> Iterator[str]:
    decoder, config = cast("Any", model).base_model, cast("Any", model.config)
    if type(decoder) not in DECODERS:
        yield f"it is written for {', '.join(kind.__name__ for kind in DECODERS)}, not {type(decoder).__name__}"
        return
    if model.device.type != "cpu":
        yield f"it is written for CPUs; {model.device.type} has kernels of its own"
    if model.dtype not in (torch.float32, torch.float64):
        yield f"weights are of {str(model.dtype).removeprefix('torch.')}"
    if config.hidden_act not in ("silu", "swish"):
        yield f"the activation is {config.hidden_act}"
    if config.attention_dropout:
        yield "attention has dropout"
    if not attention.enable(model):
        yield "attention is not of the scaled-dot-product form over whole documents (a sliding window, for example)"
    if model.is_activation_checkpointing:
        yield "gradient checkpointing is on"
    for name, module in decoder.named_modules():
        problem = _problem(name.rpartition(".")[2], module)
        if problem:
            yield f"{problem} ({name or 'the model'})"


def _problem(name: str, module: nn.Module) -> str | None:
    """What is unlike in a module, if anything."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return "a hook observes a layer"
    if name in LINEAR and isinstance(module, BaseTunerLayer):
        return next(_adapter_problems(module), None)
    if name in LINEAR and type(module) is not torch.nn.Linear:
        return f"a layer is a {type(module).__name__}"
    if name.endswith("norm") and type(module) not in NORMS:
        return f"a norm is a {type(module).__name__}"
    return None


def _adapter_problems(module: BaseTunerLayer) -> Iterator[str]:
    """What is not plain low-rank adaptation of a linear layer."""
    if type(module) is not LoraLinear:
        yield f"an adapter is a {type(module).__name__}"
        return
    base = module.get_base_layer()
    if type(base) is not torch.nn.Linear:
        yield f"an adapter is on a {type(base).__name__}"
    if len(module.lora_A) > 1:
        yield "a layer has several adapters"
    if module.lora_variant:
        yield "an adapter is a variant that changes the product of matrices, such as DoRA"
    if any(not isinstance(dropout, torch.nn.Identity) for dropout in module.lora_dropout.values()):
        yield "adapters have dropout"
    if any(module.lora_bias.values()):
        yield "adapters have a bias"
    weights = [layer.weight for layer in (*module.lora_A.values(), *module.lora_B.values())]
    if any(weight.dtype != base.weight.dtype for weight in weights):
        yield "adapters are of another dtype than the weights"
