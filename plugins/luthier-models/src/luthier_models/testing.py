"""Tiny random models for tests, with a real tokenizer, made in a second: decoders, encoder-decoders, classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    DistilBertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from luthier_models.families.design import Design
from luthier_models.families.table import FAMILIES
from luthier_models.new_head import with_new_head
from luthier_models.normalise import save_model
from luthier_models.recurrent.language_model import RnnConfig
from luthier_models.recurrent.seq2seq import RnnSeq2SeqConfig
from luthier_models.untrained import initialised

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template with a system message of its own, as SmolLM2 has."""

_TEXT = [
    "Return the number of rows of the table, or None if the table has not been read yet.",
    "Write the array to a file in the binary format; an existing file is replaced.",
    "Summarize in one line: the quick brown fox jumps over the lazy dog.",
]


def write_tiny_model(
    directory: Path,
    *,
    template: str | None = CHATML,
    seed: int = 0,
    width: int = 64,
    tied: bool = True,
    rope_theta: float = 10_000.0,
) -> Path:
    """Write a random model of two layers with a byte-level BPE tokenizer.

    Args:
        directory: where; made if it does not exist.
        template: the chat template; None for a model without one.
        seed: of the weights; the global random state is left as it was.
        width: of the hidden states.
        tied: whether the embedding is also the head.
        rope_theta: the base of the rotary position embedding.
    """
    tokenizer = tiny_tokenizer(template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        initializer_range=0.2,  # large enough that greedy choices are clear
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    save_model(model, tokenizer, directory)
    return directory


def write_tiny_encoder_decoder(directory: Path, family: str = "t5", *, seed: int = 0) -> Path:
    """Write a random encoder-decoder of two layers on each side, whose tokenizer closes texts.

    Args:
        directory: where; made if it does not exist.
        family: `t5`, `marian`, or `rnn-seq2seq`.
        seed: of the weights.
    """
    tokenizer = tiny_tokenizer(None)
    end = ("<|im_end|>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end[0]}", special_tokens=[end]
    )
    if family == RnnSeq2SeqConfig.model_type:
        config: PreTrainedConfig = RnnSeq2SeqConfig(
            vocab_size=len(tokenizer),
            embedding_size=32,
            hidden_size=64,
            num_hidden_layers=2,
            decoder_start_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    else:
        design = Design(layers=2, width=64, heads=4, mlp_width=128, max_length=128)
        shape = FAMILIES[family].shape(1_000_000, len(tokenizer), design)
        config = FAMILIES[family].configuration(shape, design, tokenizer)
    save_model(initialised(config, "seq2seq-lm", seed), tokenizer, directory)
    return directory


def write_tiny_decoder(directory: Path, family: str, *, seed: int = 0) -> Path:
    """Write a random decoder of two layers.

    Args:
        directory: where; made if it does not exist.
        family: as `fresh` names it (`qwen3`), or a recurrent cell, `gru` or `lstm`.
        seed: of the weights.
    """
    recurrent = family in ("gru", "lstm")
    tokenizer = tiny_tokenizer(None if recurrent else CHATML)
    if recurrent:
        config: PreTrainedConfig = RnnConfig(
            vocab_size=len(tokenizer),
            cell=family,
            embedding_size=32,
            hidden_size=48,
            num_hidden_layers=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    else:
        design = Design(layers=2, width=64, heads=4, mlp_width=128, max_length=512)
        shape = FAMILIES[family].shape(1_000_000, len(tokenizer), design)
        config = FAMILIES[family].configuration(shape, design, tokenizer)
    save_model(initialised(config, "causal-lm", seed), tokenizer, directory)
    return directory


def write_tiny_classifier(
    directory: Path,
    body: Literal["decoder", "encoder", "roberta", "distilbert"] = "decoder",
    *,
    labels: Sequence[str] = "ab",
    seed: int = 0,
) -> Path:
    """Write a random classifier of two layers, on the body of a Llama, of a ModernBERT or of an older encoder.

    Args:
        directory: where; made if it does not exist.
        body: which.
        labels: their names.
        seed: of the weights.
    """
    tokenizer = tiny_tokenizer(None)
    config = _body(body, tokenizer)
    config.initializer_range = 0.2  # large enough that texts are told apart
    form = "causal-lm" if body == "decoder" else "encoder"
    classifier = with_new_head(initialised(config, form, seed), tokenizer, labels, seed)
    save_model(classifier, tokenizer, directory)
    return directory


def _body(kind: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    tokens: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if kind == "distilbert":
        return DistilBertConfig(**tokens, dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=128)
    if kind == "roberta":
        # Its positions are counted from the one after the padding token's number.
        sizes: dict[str, Any] = {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        }
        return RobertaConfig(**tokens, **sizes, max_position_embeddings=128 + tokens["pad_token_id"] + 1)
    family = FAMILIES["modernbert" if kind == "encoder" else "llama"]
    design = Design(layers=2, width=64, heads=4, mlp_width=128, max_length=128)
    return family.configuration(family.shape(1_000_000, len(tokenizer), design), design, tokenizer)


def tiny_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of a few hundred tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokens: Any = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)  # type: ignore[no-untyped-call]
    fast.chat_template = template
    return fast
