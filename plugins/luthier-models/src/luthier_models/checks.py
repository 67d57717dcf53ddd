"""What may be loaded as a model: safetensors and a tokenizer, no pickle, no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier import InputError
from luthier_models.heads import CLASSIFIER, names_classifier
from luthier_models.recurrent import CAUSAL_LMS, SEQ2SEQ_LMS

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
SIDES = ("source.spm", "target.spm")
"""Marian's tokenizers: a SentencePiece model for prompts, one for completions, and the tokens' ids in JSON."""

GGUF_MAGIC = b"GGUF"
_FORMS = {
    "causal-lm": (
        "causal language model",
        "Name a model that generates text from left to right (one whose architecture ends in ForCausalLM).",
    ),
    "seq2seq-lm": (
        "encoder-decoder",
        "Name a model of an encoder and a decoder (one whose architecture ends in ForConditionalGeneration).",
    ),
    "encoder": (
        "encoder",
        "Name a model that reads texts in both directions (one whose architecture ends in ForMaskedLM).",
    ),
    CLASSIFIER: (
        "classifier",
        "Name a model with a head for labels (one whose architecture ends in ForSequenceClassification).",
    ),
}
"""What models of each form are called, and what to do where one is asked for and is not there."""


def is_gguf(path: Path) -> bool:
    """Whether a file is a GGUF file, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC


def check_directory(directory: Path, form: str = "causal-lm") -> None:
    """Refuse a directory that is no complete, safe Hugging Face model of a form.

    Raises:
        InputError: saying what is missing or not allowed, and what to do.
    """
    config = _read_config(directory)
    _refuse_code(directory, config)
    _refuse_quantized(directory, config)
    _refuse_other_models(directory, config, form)
    if not any((directory / name).is_file() for name in TOKENIZERS):
        raise InputError(
            f"{directory} has no tokenizer (tokenizer.json)",
            "Copy the tokenizer's files (tokenizer.json, tokenizer_config.json) of the model into it.",
        )
    _refuse_half_a_tokenizer(directory)
    for path in _weight_files(directory):
        check_safetensors(path)


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file that is cut off or is none.

    The header says how long the file must be, so nothing but the header is read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is damaged or was not copied whole ({path.stat().st_size:,} bytes): {error}",
            "Fetch it again from where the model came.",
        ) from error


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(
            f"{directory} is no model directory: it has no config.json",
            "Name the directory that holds config.json, model.safetensors and tokenizer.json, or a GGUF file.",
        )
    config = _read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise InputError(
            f"{path} does not say which architecture the model has (`model_type`)",
            "Name a directory that transformers can load: one with a config.json of the model.",
        )
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise InputError(
            f"{path} has no list of names under `architectures`, but {json.dumps(named)}",
            "Fetch it again from where the model came.",
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON: {error}", "Fetch it again from where the model came.") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} holds no JSON object", "Fetch it again from where the model came.")
    return record


def _refuse_code(directory: Path, config: dict[str, Any]) -> None:
    tokenizer_config = directory / "tokenizer_config.json"
    sources = {"config.json": config}
    if tokenizer_config.is_file():
        sources["tokenizer_config.json"] = _read_json(tokenizer_config)
    for name, record in sources.items():
        if record.get("auto_map"):
            raise InputError(
                f"{directory / name} asks to run Python code that came with the model (`auto_map`)",
                "Use a model that transformers supports itself; code from models is never run.",
            )


def _refuse_quantized(directory: Path, config: dict[str, Any]) -> None:
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise InputError(
            f"{directory} is quantized already (method {method})",
            "Name the unquantized model; an export step quantizes at the end.",
        )


def _refuse_other_models(directory: Path, config: dict[str, Any], form: str) -> None:
    found = _form_of(config)
    if found == form:
        return
    kind = ", ".join(config.get("architectures") or []) or config["model_type"]
    called, remedy = _FORMS[form]
    raise InputError(
        f"{directory} is no {called} but {kind}", f"Write `form: {found}` beside `model`." if found else remedy
    )


def _form_of(config: dict[str, Any]) -> str | None:
    """The form of the models that a configuration is of, by its classes if it names them; None if of none."""
    from transformers.models.auto import modeling_auto as auto

    if names_classifier(config.get("architectures")):
        return CLASSIFIER

    mappings: dict[str, Any] = {
        "causal-lm": {**auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, **CAUSAL_LMS},
        "seq2seq-lm": {**auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, **SEQ2SEQ_LMS},
    }
    # transformers can also load the decoder alone of an encoder-decoder.
    form = "seq2seq-lm" if config.get("is_encoder_decoder") else "causal-lm"
    mapping, named = mappings[form], set(config.get("architectures") or ())
    masked: Any = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(config["model_type"])
    if masked and form == "causal-lm" and named <= {masked, auto.MODEL_MAPPING_NAMES.get(config["model_type"])}:
        return "encoder"
    classes = {name for entry in mapping.values() for name in ([entry] if isinstance(entry, str) else entry)}
    return form if config["model_type"] in mapping and (not named or named & classes) else None


def _refuse_half_a_tokenizer(directory: Path) -> None:
    if not any((directory / name).is_file() for name in SIDES):
        return
    path = directory / "tokenizer_config.json"
    separate = path.is_file() and _read_json(path).get("separate_vocabs")
    needed = (*SIDES, "vocab.json", *(["target_vocab.json"] if separate else []))
    missing = [name for name in needed if not (directory / name).is_file()]
    if missing:
        raise InputError(
            f"{directory} lacks {', '.join(missing)} of its tokenizer",
            "Fetch the missing files from where the model came.",
        )


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        places = _read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise InputError(f"{index} names no weights (`weight_map`)", "Fetch it again from where the model came.")
        names = sorted(set(map(str, places.values())))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise InputError(
                f"{directory} lacks {', '.join(missing)}, which {index.name} names",
                "Fetch the missing files from where the model came.",
            )
        return [directory / name for name in names]
    single = directory / "model.safetensors"
    if single.is_file():
        return [single]
    pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
    if pickles:
        raise InputError(
            f"{directory} holds its weights only as {pickles[0]}, a format that can run code when it is loaded",
            "Use the model's safetensors; or, where you trust it, load it in transformers once and call "
            "save_pretrained(), which writes safetensors.",
        )
    raise InputError(f"{directory} holds no weights (model.safetensors)", "Fetch them from where the model came.")
