"""The exporter `optimum`: runs in the plugin's own environment, beside transformers 4."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from optimum.exporters.onnx import main_export  # type: ignore[import-not-found]

from luthier import InputError, PluginError
from luthier_optimum.legacy import as_transformers_4

if TYPE_CHECKING:
    from luthier import Context

TASK = "text-generation-with-past"
_PAST = "past_key_values."


def export_decoder(model: Path, ctx: Context, opset: int | None) -> None:
    """Write the model in `model` to `ctx.output` as one ONNX graph, and run it once.

    What lies beside the graph is the model's own configuration, tokenizer and template, as every other
    step reads them, not optimum's.

    Raises:
        InputError: if optimum does not know the architecture.
        PluginError: if the graph gives no finite numbers.
    """
    ctx.progress(0, 2)
    with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
        legacy, written = as_transformers_4(model, Path(scratch) / "model"), Path(scratch) / "onnx"
        _export(legacy, written, opset)
        for file in sorted(written.iterdir()):
            if ".onnx" in file.name:
                shutil.move(file, ctx.output / file.name)
    for file in sorted(model.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith(".safetensors.index.json"):
            shutil.copyfile(file, ctx.output / file.name)
    ctx.progress(1, 2)
    _try_out(ctx.output / "model.onnx")
    size = sum(path.stat().st_size for path in ctx.output.iterdir()) / 1e6
    ctx.metric("megabytes", size)
    ctx.progress(2, 2, megabytes=size)


def _export(model: Path, output: Path, opset: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about code that is not ours
        try:
            main_export(str(model), output=output, task=TASK, opset=opset, do_validation=False, local_files_only=True)
        except (ValueError, KeyError) as error:
            first = next(iter(str(error).splitlines()), "")
            raise InputError(f"optimum cannot export this model: {first}", "Try `export: genai`.") from error


def _try_out(path: Path) -> None:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tokens = 4
    feeds: dict[str, Any] = {
        "input_ids": np.arange(tokens, dtype=np.int64)[None],
        "attention_mask": np.ones((1, tokens), np.int64),
        "position_ids": np.arange(tokens, dtype=np.int64)[None],
    }
    given = {each.name: each for each in session.get_inputs()}
    feeds = {name: value for name, value in feeds.items() if name in given}
    for name, declared in given.items():
        if name.startswith(_PAST):
            feeds[name] = np.zeros((1, declared.shape[1], 0, declared.shape[3]), np.float32)
    logits: Any = session.run(["logits"], feeds)[0]
    if not np.isfinite(logits).all():
        raise PluginError("the exported graph gives numbers that are not finite", "Report it with the model's name.")
