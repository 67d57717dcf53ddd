"""The decoder of the Llama family, computed on a row with the functions of this package.

It reads the weights and adapters out of the model's own modules at each call and changes none of them: names,
state dict, merging and saving are what they were, and adapters may be switched off or replaced in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft.tuners.lora import LoraLayer
from torch.nn.functional import scaled_dot_product_attention

from luthier_models.attention import attend_by_segment
from luthier_tune.lean.functions import Projections, RMSNorm, Rotation, SwiGLU

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from luthier_models.packing import Row


def hidden(model: PreTrainedModel, row: Row) -> Tensor:
    """The last hidden states that predict the row's targets: (targets, width).

    After its attention the last layer goes on with those tokens only.
    """
    decoder: Any = model.base_model
    states = decoder.embed_tokens(row.ids) if row.states is None else row.states
    cos, sin = (part[0, :, None] for part in decoder.rotary_emb(states[None], row.positions[None]))
    layers = decoder.layers[: decoder.config.num_hidden_layers]
    for number, layer in enumerate(layers):
        attended = _attention(layer.self_attn, _norm(layer.input_layernorm, states), cos, sin, row)
        if number == len(layers) - 1:
            states, attended = states[row.index], attended[row.index]
        states = states + _project(attended, layer.self_attn.o_proj)[0]
        inner = _norm(layer.post_attention_layernorm, states)
        gated = SwiGLU.apply(*_project(inner, layer.mlp.gate_proj, layer.mlp.up_proj))  # type: ignore[no-untyped-call]
        states = states + _project(gated, layer.mlp.down_proj)[0]
    return _norm(decoder.norm, states)


def _attention(module: Any, states: Tensor, cos: Tensor, sin: Tensor, row: Row) -> Tensor:
    """Attention of each document to itself: (tokens, width) to (tokens, heads x width of a head)."""
    query, key, value = (
        projected.view(len(states), -1, module.head_dim)
        for projected in _project(states, module.q_proj, module.k_proj, module.v_proj)
    )
    if hasattr(module, "q_norm"):
        query, key = _norm(module.q_norm, query), _norm(module.k_norm, key)
    query, key = Rotation.apply(query, cos, sin), Rotation.apply(key, cos, sin)  # type: ignore[no-untyped-call]

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attended = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=module.scaling, enable_gqa=True
        )
        return attended.transpose(1, 2)

    query, key, value = (heads.transpose(0, 1)[None] for heads in (query, key, value))
    return attend_by_segment(attend, query, key, value, row.segments)[0].flatten(1)


def _norm(module: Any, states: Tensor) -> Tensor:
    normed: Tensor = RMSNorm.apply(states, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def _project(states: Tensor, *modules: nn.Module) -> tuple[Tensor, ...]:
    """What linear layers, with or without an adapter, make of the same states."""
    scalings, tensors = [], []
    for module in modules:
        scaling, a, b = 0.0, None, None
        layer: Any = module
        if isinstance(module, LoraLayer):
            layer = module.get_base_layer()
            active = [name for name in module.active_adapters if name in module.lora_A]
            if active and not module.disable_adapters and not module.merged:
                scaling = module.scaling[active[0]]
                a, b = module.lora_A[active[0]].weight, module.lora_B[active[0]].weight
        scalings.append(scaling)
        tensors += [layer.weight, layer.bias, a, b]
    projected: tuple[Tensor, ...] = Projections.apply(states, tuple(scalings), *tensors)  # type: ignore[no-untyped-call]
    return projected
