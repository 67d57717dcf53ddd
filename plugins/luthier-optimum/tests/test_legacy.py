from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier import InputError
from luthier_optimum.legacy import as_transformers_4

VERSION_5: dict[str, Any] = {
    "model_type": "llama",
    "dtype": "float32",
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
}


def write(directory: Path, config: dict[str, Any], tokenizer: dict[str, Any]) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def read(directory: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / name).read_text())
    return found


def test_the_rotary_base_and_the_dtype_have_their_old_names(tmp_path):
    model = write(tmp_path / "model", VERSION_5, {"tokenizer_class": "TokenizersBackend"})
    legacy = as_transformers_4(model, tmp_path / "legacy")
    assert read(legacy, "config.json") == {
        "model_type": "llama",
        "rope_theta": 100000.0,
        "rope_scaling": None,
        "torch_dtype": "float32",
    }
    assert read(legacy, "tokenizer_config.json") == {"tokenizer_class": "PreTrainedTokenizerFast"}
    assert (legacy / "model.safetensors").read_bytes() == b"weights"
    assert read(model, "config.json") == VERSION_5


def test_scaled_rotary_embeddings_keep_their_parameters(tmp_path):
    scaled = {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    model = write(tmp_path / "model", {"rope_parameters": scaled}, {"extra_special_tokens": ["<a>"]})
    legacy = as_transformers_4(model, tmp_path / "legacy")
    config = read(legacy, "config.json")
    assert config["rope_theta"] == 500000.0
    assert config["rope_scaling"] == {name: value for name, value in scaled.items() if name != "rope_theta"}
    assert read(legacy, "tokenizer_config.json") == {"additional_special_tokens": ["<a>"]}


def test_what_the_older_form_cannot_say_is_refused(tmp_path):
    by_layer = {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {"rope_theta": 2.0}}
    model = write(tmp_path / "model", {"rope_parameters": by_layer}, {})
    with pytest.raises(InputError, match="by type of layer"):
        as_transformers_4(model, tmp_path / "legacy")


def test_a_directory_of_transformers_4_stays_as_it_is(tmp_path):
    old = {"rope_theta": 100000.0, "torch_dtype": "float32"}
    model = write(tmp_path / "model", old, {"tokenizer_class": "GPT2Tokenizer"})
    assert read(as_transformers_4(model, tmp_path / "legacy"), "config.json") == old
