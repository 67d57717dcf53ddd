"""GGUF, the files of llama.cpp and its clients: the exporter `gguf`.

Importing this module loads no heavy library; the component imports its implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from luthier import component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Known, Model


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
) -> None:
    """Export a causal language model as one GGUF file, for llama.cpp and the programs that are built on it.

    The file has the weights, the tokenizer and the chat template; the tokenizer's own files lie beside it, for
    Luthier. Where transformers reads the architecture from GGUF, it reads the weights back, and the logits are compared
    with the model's before the file counts as exported.

    Args:
        precision: of the matrices, embedding and head too, by llama.cpp's names: `q8_0` has 8 bits a weight and a
            scale for 32 of them, `q4_0` 4, `q4_1` an offset as well. Matrices whose rows are no multiple of 32 are
            kept in `f16`, vectors in `f32`.
    """
    from luthier_gguf.export import export_gguf

    export_gguf(model.path, ctx, precision)


@hookimpl
def luthier_exporters() -> list[Callable[..., Any]]:
    """Give the exporter."""
    return [gguf]
