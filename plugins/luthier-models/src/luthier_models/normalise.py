"""Pretrained models, normalised: whatever the source, a directory of safetensors comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoModelForCausalLM

from luthier import InputError
from luthier_models.checks import check_directory, is_gguf
from luthier_models.gguf_tokenizer import load_gguf_tokenizer
from luthier_models.loading import load_causal_lm, load_model
from luthier_models.prompts import load_tokenizer, vocabularies

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def write_pretrained(
    path: Path, output: Path, *, form: str = "causal-lm", dtype: str = "float32", source: str = ""
) -> None:
    """Read the model at `path` (a Hugging Face directory or a GGUF file) and write it to `output`.

    Args:
        path: what was fetched.
        output: the directory to write: config, safetensors, tokenizer, chat template, generation config.
        form: what it is; a GGUF file is always a `causal-lm`.
        dtype: the type of the written weights.
        source: what the user called it, for messages.

    Raises:
        InputError: if it is neither, incomplete, damaged, a pickle, or of another form.
    """
    path = Path(path)
    if path.is_dir():
        check_directory(path, form)
        tokenizer = load_tokenizer(path)
        model = load_model(path, form, dtype=dtype)
    elif path.is_file() and is_gguf(path):
        if form != "causal-lm":
            raise InputError(
                f"{source or path} is a GGUF file, and those are read as decoders",
                "Leave out `form`, or name the Hugging Face directory of the other model.",
            )
        tokenizer, model = _read_gguf(path, dtype)
    else:
        raise InputError(
            f"{source or path} is neither a model directory nor a GGUF file",
            "Name a Hugging Face model directory (config.json, model.safetensors, tokenizer.json) or a .gguf file.",
        )
    if form == "seq2seq-lm":
        _check_targets(tokenizer, source or str(path))
    elif not tokenizer.is_fast:
        raise InputError(
            f"{source or path} has a tokenizer that cannot be written as tokenizer.json",
            "Add the tokenizer.json of the model; the tokenizers library reads no other form.",
        )
    _check_vocabulary(model, tokenizer, source or str(path))
    save_model(model, tokenizer, output)


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Refuse a tokenizer that gives numbers for which the embedding has no row; spare rows are usual."""
    embeddings: list[Any] = [model.get_input_embeddings(), cast("Any", model).get_output_embeddings()]
    for embedding, vocabulary in zip(embeddings, vocabularies(tokenizer), strict=False):
        rows = int(embedding.weight.shape[0])
        highest, token = max((number, token) for token, number in vocabulary.items())
        if highest >= rows:
            raise InputError(
                f"the vocabulary of {source} does not fit the model: token {token!r} has the number {highest}, and "
                f"the embedding has {rows} rows",
                "Put the tokenizer's files beside the weights that belong to them.",
            )


def _check_targets(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Refuse a tokenizer of several languages that is not told which of them to write."""
    try:
        tokenizer(text_target="a")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the tokenizer of {source} cannot encode what the model is to write: {type(error).__name__}: {error}",
            "Where it knows several languages, name them in its tokenizer_config.json: `src_lang` and `tgt_lang`.",
        ) from error


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write a model with its tokenizer, chat template and generation configuration.

    Tied weights are stored once, as safetensors does.
    """
    os.makedirs(output, exist_ok=True)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def _read_gguf(path: Path, dtype: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    tokenizer = load_gguf_tokenizer(path)
    loaded = load_causal_lm(path.parent, dtype=dtype, gguf_file=path.name)
    return tokenizer, _without_quantizer(loaded)


def _without_quantizer(loaded: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that transformers will save.

    A model loaded from GGUF keeps its quantizer and refuses to be saved, though its weights are dense.
    """
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(loaded).__name__]
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=loaded.dtype
        )
    model.load_state_dict(loaded.state_dict(), strict=True, assign=True)
    model.tie_weights()
    if loaded.generation_config is not None:
        model.generation_config = loaded.generation_config
    unquantized: PreTrainedModel = model.eval()
    return unquantized
