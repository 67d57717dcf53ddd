"""The exporter `dynamo`: a language model of any form to ONNX graphs that carry its states, by torch's own exporter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from luthier import InputError
from luthier_models.loading import load_by_config
from luthier_onnx.packed import PACKED_FILE
from luthier_onnx.routes import other_routes
from luthier_onnx.steps import step_modules
from luthier_onnx.tracing import Unexportable, write_graph
from luthier_onnx.verification import verify

if TYPE_CHECKING:
    from luthier import Context


def export_dynamo(model: Path, ctx: Context, *, verified_tokens: int) -> None:
    """Write the model in `model` to `ctx.output` as ONNX graphs in float32, with what runs them.

    Args:
        model: a Hugging Face directory.
        ctx: where to.
        verified_tokens: of the longest text that it is compared on.

    Raises:
        InputError: if the model cannot be loaded, or torch cannot export it.
        PluginError: if what was written does not run, or computes something else.
    """
    if (model / PACKED_FILE).is_file():
        ctx.log.warning(
            "the integers that were chosen for this model are written as the float32 numbers that they stand for, "
            "which makes nothing smaller: `export: genai` packs them"
        )
    form = _write_graphs(model, ctx)
    for file in sorted(model.iterdir()):
        if file.is_file() and ".safetensors" not in file.name:
            shutil.copyfile(file, ctx.output / file.name)
    ctx.log.info("written; comparing it with PyTorch")
    verify(model, ctx, form, longest=verified_tokens)


def _write_graphs(model: Path, ctx: Context) -> str:
    # Let go of before the verification loads it again.
    loaded = load_by_config(model, dtype="float32")
    try:
        interface, graphs = step_modules(loaded)
        for done, (name, traceable) in enumerate(graphs.items()):
            ctx.progress(done, len(graphs) + 1)
            write_graph(traceable, ctx.output / name)
    except Unexportable as error:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        raise InputError(
            f"dynamo cannot export {type(loaded).__name__}: {error}", other_routes(config, "dynamo")
        ) from error
    interface.write(ctx.output)
    ctx.progress(len(graphs), len(graphs) + 1)
    return interface.form
