"""What the graphs of a model directory take and give from token to token: `interface.json`, and optimum's names.

| form | graphs | carried from step to step | read at each step, beside `input_ids` |
|---|---|---|---|
| `decoder` | `model.onnx` | `attention`: keys and values | `attention_mask`, `position_ids` |
| `decoder` | `model.onnx` | `recurrent`: the states of layers | `lengths` |
| `encoder-decoder` | `encoder.onnx`, `decoder.onnx` | either | `encoder_attention_mask` |
| `sequence-classifier` | `model.onnx` | `nothing`: a text is read whole | `attention_mask` |

Texts of unequal length that an attending decoder is to continue are padded at their beginnings, with 0 in the mask,
all others at their ends. What an encoder gives under the name of an input of the decoder is that input: a carried one
begins with it, any other stays as it is. A carried input that nobody gives begins with zeros, as long as its fixed
axes say and with no tokens.

Importing this module loads no heavy library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luthier import InputError

INTERFACE_FILE = "interface.json"
VERSION = 1
MODEL, ENCODER, DECODER = "model.onnx", "encoder.onnx", "decoder.onnx"
GRAPHS: Mapping[str, tuple[str, ...]] = {
    "decoder": (MODEL,),
    "encoder-decoder": (ENCODER, DECODER),
    "sequence-classifier": (MODEL,),
}
"""The graphs of each form; the last is the one that gives logits."""

ATTENTION, RECURRENT, NOTHING = "attention", "recurrent", "nothing"

_CARRIED = (ATTENTION, RECURRENT, NOTHING)
_AGAIN = "Export the model again."


@dataclass(frozen=True)
class Interface:
    """How a model's graphs belong together.

    Attributes:
        form: of the model, a key of `GRAPHS`.
        carries: what goes from step to step, `ATTENTION`, `RECURRENT` or `NOTHING`.
        states: the carried inputs, each with the output that it is at the next step.
    """

    form: str
    carries: str = ATTENTION
    states: Mapping[str, str] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write the file into a model directory."""
        record = {"version": VERSION, **asdict(self)}
        (directory / INTERFACE_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_interface(directory: Path, inputs: list[str]) -> Interface:
    """The interface of a model directory.

    Args:
        directory: the model.
        inputs: those of `model.onnx`, where the directory has one: without an interface file it is a decoder with
            optimum's names.

    Raises:
        InputError: if the file is damaged or of a newer version.
    """
    path = directory / INTERFACE_FILE
    if not path.is_file():
        pasts = [name for name in inputs if name.startswith("past_key_values.")]
        states = {name: name.replace("past_key_values.", "present.") for name in pasts}
        return Interface("decoder", states=states)
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, found = record["version"], Interface(record["form"], record["carries"], dict(record["states"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} describes no interface: {error!r}", _AGAIN) from error
    if version > VERSION or found.form not in GRAPHS or found.carries not in _CARRIED:
        raise InputError(
            f"{path} has version {version}, form {found.form!r} and carries {found.carries!r}; this luthier-onnx "
            f"reads version {VERSION} of {', '.join(GRAPHS)}, which carry {', '.join(_CARRIED)}",
            "Upgrade: pip install --upgrade luthier-onnx",
        )
    return found
