"""`rnn-seq2seq`: a bidirectional recurrent encoder and a recurrent decoder with attention, as transformers models.

The attention is Luong's (Luong et al., 2015, arXiv:1508.04025, the score *general*): it follows the decoder's
layers and feeds nothing back into them, so that training runs over all steps in one call. The decoder starts
from the encoder's ends through a layer, as in Bahdanau et al., 2015 (arXiv:1409.0473). `generate` carries the
decoder's state as its cache, so that a token costs no more than its attention to the prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import GenerationMixin
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPast, Seq2SeqLMOutput

from luthier_models.recurrent import cells
from luthier_models.recurrent.cells import RecurrentState
from luthier_models.recurrent.language_model import RnnConfig, RnnPreTrainedModel

if TYPE_CHECKING:
    from torch import Tensor

    from luthier_models.recurrent.cells import States


class RnnSeq2SeqConfig(RnnConfig):  # type: ignore[no-untyped-call]
    """The sizes of a recurrent encoder-decoder, each side of which has `num_hidden_layers` layers.

    `hidden_size` is that of the decoder, and of both directions of the encoder together: it is even. One embedding
    is that of both sides and the output layer. The other attributes are those of `RnnConfig`.
    """

    model_type = "rnn-seq2seq"

    is_encoder_decoder: bool = True
    decoder_start_token_id: int | None = None


class RnnSeq2SeqPreTrainedModel(RnnPreTrainedModel):  # type: ignore[no-untyped-call]
    """What the parts have in common: the configuration, and the first weights of `RnnPreTrainedModel`."""

    config_class = RnnSeq2SeqConfig

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)


class RnnEncoder(RnnSeq2SeqPreTrainedModel):  # type: ignore[no-untyped-call]
    """Layers in both directions over prompts that are padded at their ends.

    A direction is a cell of its own, and the backward one reads each prompt turned round: so neither needs
    packing, whose backward pass is slow on CPUs.

    Args:
        config: the sizes.
        embedding: of the tokens.
    """

    def __init__(self, config: RnnSeq2SeqConfig, embedding: nn.Embedding) -> None:
        super().__init__(config)
        self.embed_tokens = embedding
        width, layers = config.hidden_size, config.num_hidden_layers
        inputs = [config.embedding_size, *[width] * (layers - 1)]
        self.forwards = nn.ModuleList(cells.make_cell(config.cell, each, width // 2, 1, 0.0) for each in inputs)
        self.backwards = nn.ModuleList(cells.make_cell(config.cell, each, width // 2, 1, 0.0) for each in inputs)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """Read prompts.

        Args:
            input_ids: (prompts, tokens), padded at the end.
            attention_mask: (prompts, tokens), 0 at padding.

        Returns:
            `last_hidden_state`, (prompts, tokens, width), the directions side by side; at padding it means nothing.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        turned = _turned(mask)
        states = self.dropout(self.embed_tokens(input_ids))
        for number, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if number:
                states = self.dropout(states)
            onward = cells.run(cast("nn.RNNBase", ahead), states)[0]
            homeward = cells.run(cast("nn.RNNBase", back), cells.pick(states, turned))[0]
            states = torch.cat([onward, cells.pick(homeward, turned)], dim=-1)
        return BaseModelOutput(last_hidden_state=states)


class RnnDecoder(RnnSeq2SeqPreTrainedModel):  # type: ignore[no-untyped-call]
    """Layers over what was written, and attention of their outputs to the encoder's.

    Args:
        config: the sizes.
        embedding: of the tokens.
    """

    def __init__(self, config: RnnSeq2SeqConfig, embedding: nn.Embedding) -> None:
        super().__init__(config)
        self.embed_tokens = embedding
        width, layers = config.hidden_size, config.num_hidden_layers
        self.cell = cells.make_cell(config.cell, config.embedding_size, width, layers, config.dropout)
        self.bridge = nn.Linear(width, layers * width)
        self.query = nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, config.output_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        *,
        past_key_values: RecurrentState | None = None,
        use_cache: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Read what was written so far, or what is new of it.

        Args:
            input_ids: (completions, tokens).
            encoder_hidden_states: (completions, tokens of the prompt, width).
            encoder_attention_mask: (completions, tokens of the prompt), 0 at padding.
            past_key_values: the state to go on from.
            use_cache: whether to give the state.

        Returns:
            `last_hidden_state`, (completions, tokens, width of the output), and the state as `past_key_values`.
        """
        read = encoder_hidden_states
        mask = encoder_attention_mask
        if mask is None:
            mask = torch.ones(read.shape[:2], device=read.device)
        start = past_key_values.states if past_key_values else self.start(read, mask)
        written, states = cells.run(self.cell, self.dropout(self.embed_tokens(input_ids)), start)
        written = self.dropout(written)
        scores = (self.query(written) @ read.transpose(1, 2)).masked_fill(mask[:, None] == 0, float("-inf"))
        context = scores.softmax(-1) @ read
        outputs = torch.tanh(self.combine(torch.cat([context, written], dim=-1)))
        done = input_ids.shape[1] + (past_key_values.tokens if past_key_values else 0)
        state: Any = RecurrentState(states, done) if use_cache else None
        return BaseModelOutputWithPast(last_hidden_state=self.dropout(outputs), past_key_values=state)

    def start(self, read: Tensor, mask: Tensor) -> States:
        """The state before the first token: from where each direction of the encoder ended.

        Args:
            read: what the encoder gave, (prompts, tokens, width).
            mask: (prompts, tokens), 0 at padding.
        """
        half = read.shape[-1] // 2
        # `shape`, not `len`: an exporter takes that for a fixed number.
        last = read[torch.arange(read.shape[0], device=read.device), mask.long().sum(1) - 1, :half]
        ends = torch.cat([last, read[:, 0, half:]], dim=-1)
        layers = self.config.num_hidden_layers
        outputs = torch.tanh(self.bridge(ends)).view(ends.shape[0], layers, -1).transpose(0, 1).contiguous()
        return (outputs, torch.zeros_like(outputs)) if isinstance(self.cell, nn.LSTM) else (outputs,)


class RnnForConditionalGeneration(RnnSeq2SeqPreTrainedModel, GenerationMixin):
    """A recurrent encoder-decoder with one vocabulary for both sides.

    Args:
        config: the sizes.
    """

    base_model_prefix = ""
    # As transformers declares it.
    _tied_weights_keys = {  # noqa: RUF012
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    }

    def __init__(self, config: RnnSeq2SeqConfig) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.embedding_size)
        self.encoder = RnnEncoder(config, self.shared)
        self.decoder = RnnDecoder(config, self.shared)
        self.lm_head = nn.Linear(config.output_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of both sides."""
        return self.shared

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the embedding of both sides."""
        self.shared = self.encoder.embed_tokens = self.decoder.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: RecurrentState | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Predict completions of prompts.

        Args:
            input_ids: (prompts, tokens), padded at the end; not needed beside `encoder_outputs`.
            attention_mask: (prompts, tokens), 0 at padding.
            decoder_input_ids: (prompts, tokens), what was written, from the start token on.
            encoder_outputs: what the encoder made of the prompts.
            past_key_values: the decoder's state, where `decoder_input_ids` are only what is new.
            labels: (prompts, tokens), what is to be learnt, -100 where there is nothing; without
                `decoder_input_ids` they are read too, shifted.
            use_cache: whether to give the decoder's state; not while training, unless it is asked for.

        Returns:
            `logits`, (prompts, tokens, vocabulary), the mean loss where there are labels, and the state.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        if decoder_input_ids is None:
            assert labels is not None, "give decoder_input_ids or labels"
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        read = encoder_outputs.last_hidden_state
        written = self.decoder(
            decoder_input_ids,
            read,
            attention_mask,
            past_key_values=past_key_values,
            use_cache=self.config.use_cache and not self.training if use_cache is None else use_cache,
        )
        logits = self.lm_head(written.last_hidden_state)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=written.past_key_values,
            encoder_last_hidden_state=read,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder reads before each label: the start token, and all labels but the last."""
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = self.config.decoder_start_token_id
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)


def _turned(mask: Tensor) -> Tensor:
    """For each prompt the places of its tokens in the other order, and of its padding in the same."""
    places = torch.arange(mask.shape[1], device=mask.device)
    lengths = mask.long().sum(1, keepdim=True)
    return torch.where(places < lengths, lengths - 1 - places, places)
