"""ONNX: the exporter `genai` and the runtimes `onnxruntime-genai` and `onnxruntime`.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from luthier import component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Generator, Model, OnnxModel


@component(gives="genai", needs={"model": {"causal-lm"}})
def genai(model: Model, ctx: Context) -> None:
    """Export a causal language model to ONNX with onnxruntime-genai's model builder, for the CPU.

    The result has one graph with its weights, the tokenizer, the chat template and `genai_config.json`. Weights are
    float32, for `quantize: int8` or `int4` to make smaller; those that a `quantize` step chose integers for before
    the export are packed as exactly these integers. It is loaded and run once before it counts as exported.
    """
    from luthier_onnx.export import export_genai

    export_genai(model.path, ctx)


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
