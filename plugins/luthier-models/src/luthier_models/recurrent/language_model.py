"""`rnn-lm`: GRU and LSTM language models as transformers models.

An embedding, a stack of recurrent layers, and an output layer that is the embedding again where they are tied
(Press & Wolf, 2017, arXiv:1608.05859), with a projection to its width where that is not the layers'. `generate`
carries the state as its cache, so that a token costs the same however many came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from luthier_models.recurrent import cells
from luthier_models.recurrent.cells import RecurrentState

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class RnnConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The sizes of a recurrent language model.

    Attributes:
        cell: `gru` or `lstm`.
        embedding_size: the width of the embedding.
        hidden_size: the width of the recurrent layers.
        num_hidden_layers: how many there are.
        dropout: in training, of the embedding, between the layers, and after them.
        tie_word_embeddings: whether the embedding is also the output layer.
    """

    model_type = "rnn-lm"

    vocab_size: int = 256
    cell: str = "lstm"
    embedding_size: int = 128
    hidden_size: int = 512
    num_hidden_layers: int = 1
    dropout: float = 0.0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @property
    def has_projection(self) -> bool:
        """Whether the layers' outputs are brought to the width of a tied embedding."""
        return self.tie_word_embeddings and self.embedding_size != self.hidden_size

    @property
    def output_size(self) -> int:
        """The width of what the output layer reads."""
        return self.embedding_size if self.tie_word_embeddings else self.hidden_size


class RnnPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What the model with and without an output layer have in common."""

    config_class: type[RnnConfig] = RnnConfig
    base_model_prefix = "model"
    # `generate` may not take tokens back: a state cannot be cut.
    _is_stateful = True

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # The state is made by the first call, not by `generate`.
        return False

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
            cells.initialise(module)
        elif isinstance(module, nn.Embedding):
            # Rows of length 1, as embedding and as output layer.
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)


class RnnModel(RnnPreTrainedModel):
    """Embedding and recurrent layers.

    Args:
        config: the sizes.
    """

    def __init__(self, config: RnnConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.cell = cells.make_cell(
            config.cell, config.embedding_size, config.hidden_size, config.num_hidden_layers, config.dropout
        )
        self.projection = (
            nn.Linear(config.hidden_size, config.embedding_size, bias=False) if config.has_projection else nn.Identity()
        )
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the embedding."""
        self.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        past_key_values: RecurrentState | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        document_lengths: Sequence[int] | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Read tokens.

        Args:
            input_ids: (documents, tokens).
            attention_mask: (documents, tokens so far), 0 at padding, which changes no state.
            past_key_values: the state to go on from.
            inputs_embeds: (documents, tokens, width), instead of `input_ids`.
            use_cache: whether to give the state; not while training, unless it is asked for.
            document_lengths: the tokens of each of the documents that one row is packed with. None sees another.

        Returns:
            `last_hidden_state`, (documents, tokens, width of the output), and the state as `past_key_values`.
        """
        embedded = self.dropout(self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds)
        if document_lengths is not None:
            outputs = cells.run_documents(self.cell, embedded[0], document_lengths)[None]
            return BaseModelOutputWithPast(last_hidden_state=self._leave(outputs))
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        past = past_key_values.states if past_key_values else None
        mask = None if attention_mask is None else attention_mask[:, -embedded.shape[1] :]
        # Without a state to keep, padding after a document changes nothing that anybody reads.
        if mask is not None and not bool((mask if use_cache else mask[:, 0]).all()):
            outputs, states = cells.run_padded(self.cell, embedded, mask, past)
        else:
            outputs, states = cells.run(self.cell, embedded, past)
        read = embedded.shape[1] + (past_key_values.tokens if past_key_values else 0)
        state: Any = RecurrentState(states, read) if use_cache else None
        return BaseModelOutputWithPast(last_hidden_state=self._leave(outputs), past_key_values=state)

    def _leave(self, outputs: Tensor) -> Any:
        return self.dropout(self.projection(outputs))


class RnnForCausalLM(RnnPreTrainedModel, GenerationMixin):
    """A recurrent language model.

    Args:
        config: the sizes.
    """

    # As transformers declares it.
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: RnnConfig) -> None:
        super().__init__(config)
        self.model = RnnModel(config)
        self.lm_head = nn.Linear(config.output_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        past_key_values: RecurrentState | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Read tokens and predict the next ones; see `RnnModel.forward`.

        Args:
            input_ids: (documents, tokens).
            attention_mask: (documents, tokens so far), 0 at padding.
            past_key_values: the state to go on from.
            inputs_embeds: instead of `input_ids`.
            labels: (documents, tokens), the tokens to learn, -100 where there is none; shifted inside.
            use_cache: whether to give the state.
            logits_to_keep: how many of the last positions, or which, get logits; 0 for all.
            options: further ones of `RnnModel.forward` and of the loss.

        Returns:
            `logits`, (documents, positions, vocabulary), the loss where there are labels, and the state.
        """
        read = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            document_lengths=options.pop("document_lengths", None),
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(read.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **options)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=read.past_key_values)
