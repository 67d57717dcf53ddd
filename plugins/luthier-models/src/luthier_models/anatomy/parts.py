"""What each tensor of a model is for, by its name, and what of the model costs time and memory.

Names are those of transformers' models: `embed_tokens`, `wte`, `shared`; `self_attn`, `SelfAttention`; `mlp`, `fc1`;
`lm_head`; `score` or `classifier`, the head of a classifier. A tensor that no rule knows is `other`, and is reckoned
with as a matrix that every token is multiplied by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier_models.anatomy.tensors import Tensor
from luthier_models.heads import CLASSIFIER, names_classifier, names_encoder

_RULES = (
    ("head", r"^(score|classifier|head|pre_classifier)\b|\bpooler\b"),
    ("positions", r"\b(wpe|embed_positions|position_embeddings|relative_attention_bias)\b"),
    ("output", r"\b(lm_head|embed_out|final_logits_bias|output_projection)\b"),
    ("embedding", r"\b(embed_tokens|wte|shared|word_embeddings|embed_in|tok_embeddings)\b"),
    ("recurrence", r"weight_(ih|hh)|bias_(ih|hh)|\bcell\b"),
    ("norms", r"norm\b|norm_?\d|\bln_|layernorm|layer_norm"),
    ("attention", r"attn|attention"),
    ("mlp", r"mlp|\bfc\d|feed_forward|dense_?relu_?dense|experts|\bff\b"),
)


@dataclass(frozen=True)
class Side:
    """An encoder, or a decoder with the output layer: what a token goes through.

    Attributes:
        name: `encoder`, `decoder`, or `model` where there is only one.
        matrices: (outputs, inputs) of each matrix that a token is multiplied by, without the output layer.
        head: (tokens of the vocabulary, width) of the output layer; None for an encoder, and for a classifier,
            whose own reads one row of numbers a text.
        layers: that attend.
        attention_width: of all heads together.
        cached_width: of the keys and values of a token in one layer.
        state: numbers that a recurrent side keeps, however much it has read.
    """

    name: str
    matrices: tuple[tuple[int, int], ...]
    head: tuple[int, int] | None
    layers: int = 0
    attention_width: int = 0
    cached_width: int = 0
    state: int = 0

    @property
    def products(self) -> int:
        """The weights that a token is multiplied by."""
        return sum(rows * columns for rows, columns in self.matrices) + (
            self.head[0] * self.head[1] if self.head else 0
        )


@dataclass(frozen=True)
class Anatomy:
    """A model's parts.

    Attributes:
        kind: `causal-lm`, `encoder-decoder`, `recurrent`, `encoder` or `sequence-classifier`.
        blocks: its parameters by block.
        weight_bytes: of its weights as they are stored.
        writes: whether it makes texts.
        tied: whether the embedding is also the output layer.
        sides: what tokens go through.
        rough: why the figures are rougher than usual; empty if they are not.
    """

    kind: str
    blocks: Mapping[str, int]
    weight_bytes: int
    writes: bool
    tied: bool
    sides: tuple[Side, ...]
    rough: str = ""

    @property
    def parameters(self) -> int:
        """How many there are; a tied embedding counts once."""
        return sum(self.blocks.values())


def block_of(name: str) -> str:
    """The block that a tensor belongs to."""
    return next((block for block, pattern in _RULES if re.search(pattern, name, re.IGNORECASE)), "other")


def dissect(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> Anatomy:
    """A model's parts, from its configuration and its tensors."""
    sides = {side for each in tensors for side in ("encoder", "decoder") if re.search(rf"\b{side}\.", each.name)}
    paired = bool(config.get("is_encoder_decoder")) or len(sides) == 2
    blocks: dict[str, int] = {}
    for each in tensors:
        block = block_of(each.name)
        side = _side_of(each.name) if paired and block not in ("embedding", "output", "positions") else ""
        key = f"{side} {block}".strip()
        blocks[key] = blocks.get(key, 0) + each.size
    recurrent = any(block_of(each.name) == "recurrence" for each in tensors)
    names = ("encoder", "decoder") if paired else ("model",)
    experts = next((key for key in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(key)), "")
    kind = "encoder-decoder" if paired else "recurrent" if recurrent else "causal-lm"
    if names_classifier(config.get("architectures")):
        kind = CLASSIFIER
    elif names_encoder(config.get("architectures")) and kind == "causal-lm":
        kind = "encoder"
    writes = kind not in (CLASSIFIER, "encoder")
    return Anatomy(
        kind=kind,
        blocks=blocks,
        weight_bytes=sum(each.size * each.bits // 8 for each in tensors),
        writes=writes,
        tied=writes and not any(block_of(each.name) == "output" and len(each.shape) == 2 for each in tensors),
        sides=tuple(_side(name, config, tensors, paired=paired, recurrent=recurrent, writes=writes) for name in names),
        rough="operations count all experts, of which a token goes through a few only" if experts else "",
    )


def _side(
    name: str, config: Mapping[str, Any], tensors: Sequence[Tensor], *, paired: bool, recurrent: bool, writes: bool
) -> Side:
    own = [each for each in tensors if not paired or _side_of(each.name) == name]
    matrices = tuple(
        (each.size // each.shape[-1], each.shape[-1])
        for each in own
        if len(each.shape) >= 2 and block_of(each.name) not in ("embedding", "output", "positions", "head")
    )
    sizes = _attention(name, config)
    state = 0
    if recurrent:
        # An LSTM keeps its memory besides its output.
        gates = 4 if config.get("cell") == "lstm" else 3
        widths = [each.shape[0] // gates for each in own if "weight_hh" in each.name]
        state = sum(widths) * (2 if gates == 4 else 1)
    return Side(
        name=name,
        matrices=matrices,
        head=_head(tensors) if writes and name != "encoder" else None,
        state=state,
        # A recurrent decoder attends to its source by matrices of its own, which are counted as such.
        **({} if recurrent else sizes),
    )


def _head(tensors: Sequence[Tensor]) -> tuple[int, int] | None:
    """The output layer's shape; the embedding's where they are tied."""
    for block in ("output", "embedding"):
        found = [each for each in tensors if block_of(each.name) == block and len(each.shape) == 2]
        if found:
            largest = max(found, key=lambda each: each.size)
            return (max(largest.shape), min(largest.shape))
    return None


def _attention(side: str, config: Mapping[str, Any]) -> dict[str, int]:
    """Layers and widths of attention, by whichever names the configuration has for them."""
    prefix = "encoder_" if side == "encoder" else "decoder_"
    width = _first(config, "hidden_size", "n_embd", "d_model")
    heads = _first(config, f"{prefix}attention_heads", "num_attention_heads", "n_head", "num_heads")
    layers = (f"num_{prefix}layers", f"{prefix}layers", "num_hidden_layers", "n_layer", "num_layers")
    head_width = _first(config, "head_dim", "d_kv") or (width // heads if heads else 0)
    shared = heads if side == "encoder" else _first(config, "num_key_value_heads") or heads
    return {
        "layers": _first(config, *layers),
        "attention_width": heads * head_width,
        "cached_width": 2 * shared * head_width,
    }


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)


def _side_of(name: str) -> str:
    return "encoder" if re.search(r"\bencoder\b", name) else "decoder"
