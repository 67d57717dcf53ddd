"""ONNX: the exporter `genai` and the runtimes `onnxruntime-genai` and `onnxruntime`.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from luthier import InputError, component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Generator, Model, OnnxModel


def check_quantization(*, precision: str, sensitive_int8: bool, **_: object) -> None:
    """Refuse options that the precision leaves no meaning to; takes the exporter's whole configuration.

    Raises:
        InputError: naming the option and the precision that it needs.
    """
    if sensitive_int8 and precision != "int4":
        raise InputError(
            f"sensitive_int8 has no meaning with precision {precision}",
            "Set precision: int4, or leave sensitive_int8 out.",
        )


@component(gives="genai", needs={"model": {"causal-lm"}}, check=check_quantization)
def genai(
    model: Model,
    ctx: Context,
    *,
    precision: Literal["fp32", "int8", "int4"] = "int8",
    block_size: Literal[16, 32, 64, 128, 256] = 32,
    method: Literal["rtn", "k-quant"] = "rtn",
    head: Literal["int8", "int4"] = "int8",
    sensitive_int8: bool = False,
    share_embedding: bool = True,
) -> None:
    """Export a causal language model to ONNX with onnxruntime-genai's model builder, for the CPU.

    The weights of matrix products are quantized in blocks and no data is needed. The result has one
    graph with its weights, the tokenizer, the chat template and `genai_config.json`. It is loaded and
    run once before it counts as exported.

    Args:
        precision: of the weights of matrix products. `int8` keeps quality; `int4` is smaller and needs
            a `parity` gate to say whether it is good enough; `fp32` changes nothing.
        block_size: so many weights share one scale; smaller is more precise and takes more space.
        method: how scales are found: `rtn` (round to nearest) or `k-quant` (llama.cpp's search for the
            scale and zero point of least error; slower to export).
        head: with precision `int4`, the precision of the head (the product that gives the logits).
        sensitive_int8: with precision `int4`, keep the most sensitive layers' products in int8 as well
            (llama.cpp's mixed recipe).
        share_embedding: where the model ties its embedding to its head, keep one matrix for both, as the
            head has it; without, a quantized model keeps the embedding in float32.
    """
    from luthier_onnx.export import Quantization, export_genai

    export_genai(model.path, ctx, Quantization(precision, block_size, method, head, sensitive_int8, share_embedding))


@component(needs={"onnx": {"genai"}})
def onnxruntime_genai(onnx: OnnxModel, ctx: Context) -> Generator:
    """Run an ONNX model with onnxruntime-genai on the CPU."""
    from luthier_onnx.runtime import GenaiGenerator

    return GenaiGenerator(onnx.path, ctx)


@component(needs={"onnx": {"decoder"}})
def onnxruntime(onnx: OnnxModel, ctx: Context) -> Generator:
    """Run a decoder graph that takes and gives its key-value cache, as optimum exports it, on the CPU."""
    from luthier_onnx.decoder import DecoderGenerator

    return DecoderGenerator(onnx.path, ctx)


@hookimpl
def luthier_exporters() -> list[Callable[..., Any]]:
    """Give the exporters."""
    return [genai]


@hookimpl
def luthier_runtimes() -> list[Callable[..., Any]]:
    """Give the runtimes."""
    return [onnxruntime_genai, onnxruntime]
