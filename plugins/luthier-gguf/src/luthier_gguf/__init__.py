"""GGUF, the files of llama.cpp and its clients: the exporter `gguf`, the quantizer `k-quants`, the runtime `llama-cpp`.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from luthier import component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Generator, Known, Model, OnnxModel


def check_architecture(_configuration: Mapping[str, Any], *, model: Known) -> None:
    """Refuse what llama.cpp does not compute, where it is known what the model will be.

    Raises:
        InputError: naming exporters that know it.
    """
    model_type = model.traits.get("model_type")
    if model_type is not None:
        from luthier_gguf.families import check_type

        check_type(model_type)


@component(gives="gguf", needs={"model": {"causal-lm"}}, check_inputs=check_architecture)
def gguf(
    model: Model,
    ctx: Context,
    *,
    precision: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = "q8_0",
    verified_tokens: Annotated[int, Ge(64)] = 1024,
) -> None:
    """Export a causal language model as one GGUF file, for llama.cpp and the programs that are built on it.

    The file has the weights, the tokenizer and the chat template; the tokenizer's own files lie beside it, for
    Luthier. Before it counts as exported, llama.cpp runs it, and logits, greedy texts and tokens are compared with the
    model's in PyTorch; where llama.cpp is not installed, transformers reads it back, if it can.

    Args:
        precision: of the matrices, embedding and head too, by llama.cpp's names: `q8_0` has 8 bits a weight and a
            scale for 32 of them, `q4_0` 4, `q4_1` an offset as well. Matrices whose rows are no multiple of 32 are
            kept in `f16`, vectors in `f32`. llama.cpp's mixes (Q4_K_M) are made of `f16` by `quantize: k-quants`.
        verified_tokens: of the longest text that is compared, as far as the model's context goes. More of them show
            whether positions far out are right too, and take time that grows faster than they do.
    """
    from luthier_gguf.export import export_gguf

    export_gguf(model.path, ctx, precision, verified_tokens)


@component(needs={"onnx": {"gguf"}}, extra="llama")
def k_quants(
    onnx: OnnxModel,
    ctx: Context,
    *,
    precision: Literal["q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"] = "q4_k_m",
) -> None:
    """Quantize a GGUF file with llama.cpp's own quantizer to a mix of its k-quants, as most of its clients offer them.

    The file is one of `export: gguf` with `precision: f16`, `bf16` or `f32`. Matrices whose rows are no multiple of
    256 get an older type of 4 to 8 bits instead, which is larger (in SmolLM2-135M most of them); the table
    `types` says what each took. No data is needed. The result is loaded and run once before it counts.

    Args:
        precision: which mix, by llama.cpp's names: bits a weight, `_k`, and `_s`, `_m` or `_l` for how many matrices
            get more.
    """
    from luthier_gguf.quantization import write_k_quants

    write_k_quants(onnx.path, ctx, precision)


@component(needs={"onnx": {"gguf"}}, extra="llama", streams=True)
def llama_cpp(onnx: OnnxModel, ctx: Context) -> Generator:
    """Run a GGUF file with llama.cpp, through llama-cpp-python, on the CPU or a GPU that llama.cpp was built for.

    Texts are read one by one, with keys and values in float16, as llama.cpp's own programs do. Prompts are tokenised
    as for every other runtime.
    """
    from luthier_gguf.runtime import LlamaCppGenerator

    return LlamaCppGenerator(onnx.path, ctx)


@hookimpl
def luthier_exporters() -> list[Callable[..., Any]]:
    """Give the exporter."""
    return [gguf]


@hookimpl
def luthier_quantizers() -> list[Callable[..., Any]]:
    """Give the quantizer."""
    return [k_quants]


@hookimpl
def luthier_runtimes() -> list[Callable[..., Any]]:
    """Give the runtime."""
    return [llama_cpp]
