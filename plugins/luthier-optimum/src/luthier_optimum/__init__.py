"""The exporter `optimum`, on optimum-onnx, which needs transformers 4 and so an environment of its own.

Importing this module loads no heavy library; the component imports its implementation where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Interval

from luthier import component, hookimpl
from luthier_optimum.families import MODEL_TYPES, unknown

if TYPE_CHECKING:
    from luthier import Context, Known, Model


def check_model_type(_configuration: Mapping[str, Any], *, model: Known) -> None:
    """Refuse what optimum does not know, where it is known what the model will be.

    Raises:
        InputError: naming an exporter that knows it.
    """
    model_type = model.traits.get("model_type")
    if model_type is not None and model_type not in MODEL_TYPES:
        raise unknown(model_type, "Write `export: dynamo` (luthier-onnx), which knows all architectures of new models.")


@component(gives="decoder", needs={"model": {"causal-lm"}}, check_inputs=check_model_type)
def optimum(
    model: Model,
    ctx: Context,
    *,
    opset: Annotated[int, Interval(ge=14, le=21)] | None = None,
    verified_tokens: Annotated[int, Ge(64)] = 1024,
) -> None:
    """Export a causal language model to ONNX with Hugging Face optimum, in float32.

    The graph takes and gives its key-value cache, so that plain ONNX Runtime runs it (the runtime
    `onnxruntime` of luthier-onnx does). For architectures that onnxruntime-genai's builder does not know.

    Args:
        opset: the ONNX operator set; what optimum chooses for the architecture if null.
        verified_tokens: of the longest text that is compared, as far as the model's context goes. More of them show
            whether positions far out are right too, and take time that grows faster than they do.
    """
    from luthier_optimum.export import export_decoder

    export_decoder(model.path, ctx, opset, verified_tokens)


@hookimpl
def luthier_exporters() -> list[Callable[..., Any]]:
    """Give the exporter."""
    return [optimum]
