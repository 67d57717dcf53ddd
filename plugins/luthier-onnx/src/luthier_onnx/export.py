"""The exporter `genai`: onnxruntime-genai's model builder, run quietly, its result tried out."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxruntime_genai.models import builder
from transformers import AutoConfig

from luthier import InputError, LuthierError, PluginError
from luthier_models.prompts import PromptEncoder
from luthier_onnx import check_quantization
from luthier_onnx.embedding import share_int8_embedding
from luthier_onnx.runtime import GenaiGenerator

if TYPE_CHECKING:
    from luthier import Context

_METHODS = {"rtn": "default", "k-quant": "k_quant"}
_TRIAL = ("Say hello.", "Hello, and welcome.")


@dataclass(frozen=True)
class Quantization:
    """How the weights of matrix products are kept; see the component `genai`."""

    precision: str = "int8"
    block_size: int = 32
    method: str = "rtn"
    head: str = "int8"
    sensitive_int8: bool = False
    share_embedding: bool = True

    def __post_init__(self) -> None:
        check_quantization(**vars(self))

    @property
    def has_int8_head(self) -> bool:
        """Whether the head's weights are int8."""
        return self.precision == "int8" or (self.precision == "int4" and self.head == "int8")

    def builder_options(self) -> list[str]:
        """The builder's `KEY=VALUE` options."""
        options = ["hf_token=false", "hf_remote=false"]
        if self.precision != "fp32":
            options += [f"block_size={self.block_size}", f"algo_config={_METHODS[self.method]}"]
        if self.precision == "int4":
            raised = {"last_matmul": self.head == "int8", "mixed_layers": self.sensitive_int8}
            if any(raised.values()):
                names = [f"{name}:int8" for name, wanted in raised.items() if wanted]
                options.append(f"matmul_mixed_precision={','.join(names)}")
            if self.head == "int8" or not self.share_embedding:
                # Else the builder would put the embedding into int4, whatever the head is.
                options.append("shared_embeddings=false")
        return options


def export_genai(model: Path, ctx: Context, quantization: Quantization) -> None:
    """Write the model in `model` to `ctx.output` for onnxruntime-genai, and try it out.

    Raises:
        InputError: if the builder does not know the architecture, or cannot read the model.
        PluginError: if what was exported does not load or gives no finite numbers.
    """
    check_architecture(model)
    encoder = PromptEncoder.from_directory(model)
    ctx.progress(0, 2)
    build(model, ctx, quantization)
    if quantization.share_embedding and quantization.has_int8_head and _ties_embeddings(model):
        shared = share_int8_embedding(ctx.output)
        ctx.log.info("the embedding %s the head's int8 weights", "shares" if shared else "does not share")
    write_end_tokens(ctx.output, encoder.end_tokens)
    ctx.progress(1, 2)
    try_out(ctx.output)
    size = sum(path.stat().st_size for path in ctx.output.rglob("*") if path.is_file())
    ctx.metric("megabytes", size / 1e6)
    ctx.progress(2, 2, megabytes=size / 1e6)


def _ties_embeddings(model: Path) -> bool:
    # As transformers reads it: the file may leave out what is the architecture's default.
    return bool(AutoConfig.from_pretrained(model, local_files_only=True).tie_word_embeddings)


def supported_architectures() -> list[str]:
    """The architectures that the installed builder dispatches on, as `config.json` names them."""
    return sorted(set(re.findall(r'architectures\[0\] == "(\w+)"', inspect.getsource(builder.create_model))))


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
    supported = supported_architectures()
    if named[0] not in supported:
        raise InputError(
            f"onnxruntime-genai cannot export the architecture {named[0]}",
            f"Leave out the export: the runtime `transformers` runs the model as it is. Or use a model of an "
            f"architecture that can be exported: {', '.join(supported)}.",
        )
    # The builder turns the queries and keys of such layers outside of attention, in place of not at all.
    if 0 in (config.get("no_rope_layers") or []):
        raise InputError(
            f"onnxruntime-genai cannot export layers without positions, which {named[0]} has here",
            "Leave out the export: the runtime `transformers` runs the model as it is.",
        )


def build(model: Path, ctx: Context, quantization: Quantization) -> None:
    """Run the builder into `ctx.output`; what it prints goes to the log.

    Raises:
        InputError: if it cannot read or convert the model.
    """
    with tempfile.TemporaryDirectory(dir=ctx.checkpoint) as cache, _quietly(ctx):
        where = ("", str(model), str(ctx.output), quantization.precision, "cpu", cache)
        try:
            options = builder.parse_extra_options(*where, quantization.builder_options())
            builder.create_model(*where, **options)
        except (NotImplementedError, OSError, ValueError) as error:
            raise InputError(
                f"onnxruntime-genai's builder cannot export {model} as {quantization.precision}: {error}",
                "Check the model's files with `architecture: pretrained`, or try another precision.",
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


def try_out(directory: Path) -> None:
    """Load an exported model and score one completion with it.

    Raises:
        PluginError: if it does not load, or a log-probability is not finite.
    """
    remedy = "Try another precision, block_size or method, and report this to luthier-onnx."
    try:
        generator = GenaiGenerator(directory)
        [score] = generator.score([_TRIAL[0]], [_TRIAL[1]])
    except (LuthierError, RuntimeError) as error:
        raise PluginError(f"the exported model does not run: {error}", remedy) from error
    if not all(map(math.isfinite, score.log_probabilities)):
        raise PluginError("the exported model gives numbers that are not finite", remedy)


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
