"""Language models as modules of flat tensors: one step with everything that is carried as inputs and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from luthier_models.heads import is_classifier, output_layer
from luthier_models.recurrent.cells import RecurrentState
from luthier_models.recurrent.language_model import RnnForCausalLM
from luthier_models.recurrent.seq2seq import RnnForConditionalGeneration
from luthier_onnx.interface import ATTENTION, DECODER, ENCODER, MODEL, NOTHING, RECURRENT, Interface
from luthier_onnx.tracing import Axes, Traceable, Unexportable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH, _TOKENS, _PAST, _PROMPT = 2, 3, 5, 7
"""The lengths of free axes in examples: all different, none 0 or 1, which the tracer takes for fixed."""

_IDS: Axes = ("batch", "tokens")


def step_modules(model: PreTrainedModel) -> tuple[Interface, dict[str, Traceable]]:
    """How a model is written: its interface, and what becomes each of its graphs, by file.

    Raises:
        Unexportable: if what the model carries from token to token is neither keys and values of attention nor the
            states of our recurrent layers.
    """
    if isinstance(model, RnnForCausalLM):
        return _recurrent(model)
    if isinstance(model, RnnForConditionalGeneration):
        return _recurrent_pair(model)
    # Masks of finite numbers: a text that is padding so far would have no attention to give otherwise.
    model.set_attn_implementation("eager")
    if is_classifier(model):
        return _classifier(model)
    return _pair(model) if model.config.is_encoder_decoder else _decoder(model)


class DecoderStep(nn.Module):
    """A decoder: ids, mask, positions if it takes them, and its cache; logits and the longer cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ids, mask, *rest = values
        options = {"position_ids": rest.pop(0)} if self.takes_positions else {}
        cache = DynamicCache(_pairs(rest))
        output = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
        return output.logits, *_flat(output.past_key_values)


class ClassifierStep(nn.Module):
    """A classifier: ids, padded at the end, and their mask; the logits of the labels.

    A decoder's head reads the last token of each text by the mask. transformers looks for it by the token of padding,
    which may also be the last of a text.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.head = output_layer(model)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ids, mask = values
        model: Any = self.model
        if self.head is None:
            return (model(input_ids=ids, attention_mask=mask).logits,)
        states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, states.shape[-1])
        return (self.head(states.gather(1, last))[:, 0],)


class EncoderStep(nn.Module):
    """An encoder: ids and mask; the keys and values of the decoder's attention to it, by layer."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ids, mask = values
        model: Any = self.model
        read = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        # The decoder fills the cache at its first step; of the rest of the step nothing is asked, so the exporter
        # leaves it out.
        model(
            encoder_outputs=BaseModelOutput(last_hidden_state=read),
            attention_mask=mask,
            decoder_input_ids=ids[:, :1],
            past_key_values=cache,
            use_cache=True,
        )
        return _flat(cache.cross_attention_cache)


class PairedStep(nn.Module):
    """A decoder beside an encoder: ids, the prompts' mask, keys and values of the prompts and of what was written."""

    def __init__(self, model: PreTrainedModel, width: int) -> None:
        super().__init__()
        self.model = model
        self.width = width

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ids, mask, *rest = values
        read, past = rest[: self.width], rest[self.width :]
        cache = EncoderDecoderCache(DynamicCache(_pairs(past)), DynamicCache(_pairs(read)))
        # The encoder's states are not read, only their number: the keys and values are there.
        states = read[0].new_zeros(read[0].shape[0], read[0].shape[2], 1)
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits, *_flat(output.past_key_values.self_attention_cache)


class RecurrentStep(nn.Module):
    """A recurrent language model: ids and states; logits and states."""

    def __init__(self, model: RnnForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ids, *states = values
        output: Any = self.model(input_ids=ids, past_key_values=RecurrentState(tuple(states), 0), use_cache=True)
        return output.logits, *output.past_key_values.states


class RecurrentEncoderStep(nn.Module):
    """A recurrent encoder: ids and mask; what it made of them, and the states that the decoder starts from."""

    def __init__(self, model: RnnForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ids, mask = values
        read = self.model.encoder(ids, mask).last_hidden_state
        return read, *self.model.decoder.start(read, mask)


class RecurrentPairedStep(nn.Module):
    """A recurrent decoder beside an encoder: ids, the prompts' mask, what was made of them, states."""

    def __init__(self, model: RnnForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ids, mask, read, *states = values
        state = RecurrentState(tuple(states), 0)
        written = self.model.decoder(ids, read, mask, past_key_values=state, use_cache=True)
        return self.model.lm_head(written.last_hidden_state), *written.past_key_values.states


def _decoder(model: PreTrainedModel) -> tuple[Interface, dict[str, Traceable]]:
    step = DecoderStep(model)
    cache = DynamicCache()
    with torch.no_grad():
        output = _attempt(
            lambda: model(input_ids=torch.zeros(1, 2, dtype=torch.long), past_key_values=cache, use_cache=True)
        )
    pasts, presents = _cache_axes(getattr(output, "past_key_values", None), "past_key_values", "past", "total")
    positions: Mapping[str, Axes] = {"position_ids": _IDS} if step.takes_positions else {}
    inputs = {"input_ids": _IDS, "attention_mask": ("batch", "total"), **positions, **pasts}
    ids = torch.zeros(_BATCH, _TOKENS, dtype=torch.long)
    mask = torch.ones(_BATCH, _PAST + _TOKENS, dtype=torch.long)
    place = torch.arange(_PAST, _PAST + _TOKENS).expand(_BATCH, -1).contiguous()
    examples = [ids, mask, *([place] if step.takes_positions else []), *_examples(pasts)]
    outputs = {"logits": (*_IDS, output.logits.shape[-1]), **presents}
    interface = Interface("decoder", ATTENTION, dict(zip(pasts, presents, strict=True)))
    return interface, {MODEL: Traceable(step, inputs, examples, outputs)}


def _classifier(model: PreTrainedModel) -> tuple[Interface, dict[str, Traceable]]:
    if model.config.is_encoder_decoder:
        raise Unexportable("it is a classifier with an encoder and a decoder")
    ids = torch.zeros(_BATCH, _PROMPT, dtype=torch.long)
    labels = len(model.config.id2label or {})
    traceable = Traceable(
        ClassifierStep(model),
        {"input_ids": _IDS, "attention_mask": _IDS},
        [ids, torch.ones_like(ids)],
        {"logits": ("batch", labels)},
    )
    return Interface("sequence-classifier", NOTHING), {MODEL: traceable}


def _pair(model: PreTrainedModel) -> tuple[Interface, dict[str, Traceable]]:
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    ids = torch.zeros(1, 2, dtype=torch.long)
    with torch.no_grad():
        output = _attempt(lambda: model(input_ids=ids, decoder_input_ids=ids, past_key_values=cache, use_cache=True))
    cache = output.past_key_values
    pasts, presents = _cache_axes(cache.self_attention_cache, "past_key_values", "past", "total")
    read, _ = _cache_axes(cache.cross_attention_cache, "encoder_key_values", "prompt", "prompt")
    prompts = torch.zeros(_BATCH, _PROMPT, dtype=torch.long)
    mask = torch.ones_like(prompts)
    encoder = Traceable(
        EncoderStep(model),
        {"input_ids": ("batch", "prompt"), "attention_mask": ("batch", "prompt")},
        [prompts, mask],
        read,
    )
    decoder = Traceable(
        PairedStep(model, len(read)),
        {"input_ids": _IDS, "encoder_attention_mask": ("batch", "prompt"), **read, **pasts},
        [torch.zeros(_BATCH, _TOKENS, dtype=torch.long), mask, *_examples(read), *_examples(pasts)],
        {"logits": (*_IDS, output.logits.shape[-1]), **presents},
    )
    interface = Interface("encoder-decoder", ATTENTION, dict(zip(pasts, presents, strict=True)))
    return interface, {ENCODER: encoder, DECODER: decoder}


def _recurrent(model: RnnForCausalLM) -> tuple[Interface, dict[str, Traceable]]:
    pasts, presents = _state_axes(model.config, model.model.cell)
    traceable = Traceable(
        RecurrentStep(model),
        {"input_ids": _IDS, **pasts},
        [torch.zeros(_BATCH, _TOKENS, dtype=torch.long), *_examples(pasts)],
        {"logits": (*_IDS, model.config.vocab_size), **presents},
        lengths=True,
    )
    return Interface("decoder", RECURRENT, dict(zip(pasts, presents, strict=True))), {MODEL: traceable}


def _recurrent_pair(model: RnnForConditionalGeneration) -> tuple[Interface, dict[str, Traceable]]:
    pasts, presents = _state_axes(model.config, model.decoder.cell)
    prompts = torch.zeros(_BATCH, _PROMPT, dtype=torch.long)
    mask = torch.ones_like(prompts)
    read: Mapping[str, Axes] = {"encoder_states": ("batch", "prompt", model.config.hidden_size)}
    encoder = Traceable(
        RecurrentEncoderStep(model),
        {"input_ids": ("batch", "prompt"), "attention_mask": ("batch", "prompt")},
        [prompts, mask],
        {**read, **pasts},
    )
    decoder = Traceable(
        RecurrentPairedStep(model),
        {"input_ids": _IDS, "encoder_attention_mask": ("batch", "prompt"), **read, **pasts},
        [torch.zeros(_BATCH, _TOKENS, dtype=torch.long), mask, *_examples(read), *_examples(pasts)],
        {"logits": (*_IDS, model.config.vocab_size), **presents},
    )
    interface = Interface("encoder-decoder", RECURRENT, dict(zip(pasts, presents, strict=True)))
    return interface, {ENCODER: encoder, DECODER: decoder}


def _state_axes(config: Any, cell: nn.RNNBase) -> tuple[dict[str, Axes], dict[str, Axes]]:
    parts = 2 if isinstance(cell, nn.LSTM) else 1
    axes: Axes = (config.num_hidden_layers, "batch", config.hidden_size)
    pasts, presents = ({f"{word}_states.{part}": axes for part in range(parts)} for word in ("past", "present"))
    return pasts, presents


def _cache_axes(cache: Any, name: str, before: str, after: str) -> tuple[dict[str, Axes], dict[str, Axes]]:
    """The axes of a cache as it is given and as it comes back, by name, from the cache of one call."""
    layers = getattr(cache, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        raise Unexportable("from token to token it carries more than the keys and values of attention")
    pasts: dict[str, Axes] = {}
    presents: dict[str, Axes] = {}
    for number, layer in enumerate(layers):
        for part, tensor in (("key", layer.keys), ("value", layer.values)):
            _, heads, _, width = tensor.shape
            pasts[f"{name}.{number}.{part}"] = ("batch", heads, before, width)
            presents[f"present.{number}.{part}"] = ("batch", heads, after, width)
    return pasts, presents


def _attempt(call: Any) -> Any:
    try:
        return call()
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise Unexportable(f"it takes no cache of keys and values: {error}") from error


def _examples(values: Mapping[str, Axes]) -> list[Tensor]:
    lengths = {"batch": _BATCH, "past": _PAST, "prompt": _PROMPT}
    return [
        torch.zeros([lengths[size] if isinstance(size, str) else size for size in axes]) for axes in values.values()
    ]


def _pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def _flat(cache: Any) -> tuple[Tensor, ...]:
    return tuple(chain.from_iterable((layer.keys, layer.values) for layer in cache.layers))
