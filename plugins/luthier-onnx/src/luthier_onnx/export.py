"""The exporter `genai`: onnxruntime-genai's model builder, run quietly, its result verified."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxruntime_genai.models import builder

from luthier import InputError
from luthier_models.prompts import PromptEncoder
from luthier_onnx.low_rank import keep_apart
from luthier_onnx.packed import read_packed
from luthier_onnx.packing import pack_exactly
from luthier_onnx.routes import check_known, other_routes, supported_architectures
from luthier_onnx.verification import verify

if TYPE_CHECKING:
    from luthier import Context

_BUILDER_OPTIONS = ["hf_token=false", "hf_remote=false"]


def export_genai(model: Path, ctx: Context, *, adapter_apart: bool, verified_tokens: int) -> None:
    """Write the model in `model` to `ctx.output` for onnxruntime-genai, and compare it with PyTorch.

    Matrices that a quantizer left integers for are packed as those; everything else is float32.

    Args:
        model: a Hugging Face directory.
        ctx: where to.
        adapter_apart: whether the adapter that is merged into it becomes a file of its own; see `low_rank`.
        verified_tokens: of the longest text that it is compared on.

    Raises:
        InputError: if the builder does not know the architecture, or cannot read the model; if the integers are not
            those of its weights; if the adapter cannot be kept apart.
        PluginError: if what was exported does not run, or computes something else.
    """
    check_architecture(model)
    encoder = PromptEncoder.from_directory(model)
    packed = read_packed(model)
    if packed and adapter_apart:
        raise InputError(
            "integers were chosen for the merged weights, so the adapter cannot leave them again",
            "Quantize after the export: `export: genai` with `adapter: apart`, then `quantize: int8` or `int4`.",
        )
    ctx.progress(0, 2)
    build(model, ctx)
    if packed:
        pack_exactly(ctx.output, packed)
    if adapter_apart:
        keep_apart(model, ctx.output)
    write_end_tokens(ctx.output, encoder.end_tokens)
    ctx.progress(1, 2)
    verify(model, ctx, "genai", longest=verified_tokens, lossy=bool(packed))
    ctx.progress(2, 2)


def check_architecture(model: Path) -> None:
    """Refuse a model that the builder has no code for, or wrong code, before anything is loaded.

    Raises:
        InputError: naming what it cannot export, and where that is the architecture those that it can.
    """
    path = model / "config.json"
    if not path.is_file():
        raise InputError(f"{model} is no model directory: it has no config.json", "Give a Hugging Face directory.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON: {error}", "Restore the file from where the model came.") from error
    named = config.get("architectures") or ["(none named)"]
    remedy, supported = other_routes(config, "genai"), supported_architectures()
    if named[0] not in supported:
        remedy = f"{remedy} Or use a model of an architecture that it knows: {', '.join(supported)}."
    check_known(named[0], unplaced=0 in (config.get("no_rope_layers") or []), remedy=remedy)


def build(model: Path, ctx: Context) -> None:
    """Run the builder into `ctx.output`; what it prints goes to the log.

    Raises:
        InputError: if it cannot read or convert the model.
    """
    with tempfile.TemporaryDirectory(dir=ctx.checkpoint) as cache, _quietly(ctx):
        where = ("", str(model), str(ctx.output), "fp32", "cpu", cache)
        try:
            builder.create_model(*where, **builder.parse_extra_options(*where, _BUILDER_OPTIONS))
        except (NotImplementedError, OSError, ValueError) as error:
            raise InputError(
                f"onnxruntime-genai's builder cannot export {model}: {error}",
                "Check the model's files with `architecture: pretrained`.",
            ) from error


def write_end_tokens(directory: Path, end_tokens: set[int]) -> None:
    """Let genai stop where the chat template ends a turn, not only at the end of the text."""
    path = directory / "genai_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    named = settings["model"].get("eos_token_id")
    tokens = sorted(end_tokens.union([named] if isinstance(named, int) else named or []))
    if tokens:
        settings["model"]["eos_token_id"] = tokens[0] if len(tokens) == 1 else tokens
    path.write_text(json.dumps(settings, indent=4) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _quietly(ctx: Context) -> Iterator[None]:
    """Keep what the builder prints, and its progress bar, from the terminal; log the lines."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            ctx.log.debug("%s", line)
