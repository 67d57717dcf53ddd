"""A model directory that transformers 5 wrote, in the form that transformers 4 reads.

transformers 4.57 opens a version 5 `config.json` without an error and takes the default base of the
rotary position embedding (10,000) for the model's own, which version 5 keeps under `rope_parameters`:
a model that writes nonsense. So the configuration is rewritten, and what cannot be is refused.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from luthier import InputError

GENERIC_TOKENIZER = "PreTrainedTokenizerFast"


def as_transformers_4(model: Path, directory: Path) -> Path:
    """Lay a model directory out for transformers 4.57; weights and other big files are linked.

    Args:
        model: as transformers 5 saved it; a directory that transformers 4 wrote stays as it is.
        directory: where; must not exist.

    Raises:
        InputError: if the model has settings that transformers 4 has no name for.
    """
    directory.mkdir(parents=True)
    for file in sorted(model.iterdir()):
        if file.is_file():
            _place(file, directory / file.name)
    _rewrite(directory / "config.json", _config)
    _rewrite(directory / "tokenizer_config.json", _tokenizer)
    return directory


def _place(source: Path, target: Path) -> None:
    if source.suffix == ".json":
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _rewrite(path: Path, change: Any) -> None:
    if path.exists():
        settings = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(change(settings), indent=1), encoding="utf-8")


def _config(settings: dict[str, Any]) -> dict[str, Any]:
    found = dict(settings)
    rope = found.pop("rope_parameters", None)
    if rope:
        if any(isinstance(value, dict) for value in rope.values()):
            raise InputError(
                f"transformers 4 cannot say rotary embeddings by type of layer, which the model has: {', '.join(rope)}",
                "Export it with `export: genai`.",
            )
        found["rope_theta"] = rope["rope_theta"]
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        found["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    if "dtype" in found:
        found["torch_dtype"] = found.pop("dtype")
    return found


def _tokenizer(settings: dict[str, Any]) -> dict[str, Any]:
    found = dict(settings)
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = GENERIC_TOKENIZER
    extra = found.get("extra_special_tokens")
    if isinstance(extra, list):
        del found["extra_special_tokens"]
        found["additional_special_tokens"] = extra
    return found
