"""The stage `synthesize`, whose components make extra training pairs, and one of them: `templates`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, MinLen

from luthier import Context, InputError, Stage, component, hookimpl, hookspec

if TYPE_CHECKING:
    import polars as pl

PLACEHOLDERS = re.compile(r"\{(prompt|completion)\}")


@dataclass(frozen=True)
class Template:
    """How a pair is made of another: `{prompt}` and `{completion}` stand for the texts of the original."""

    prompt: str = "{prompt}"
    completion: str = "{completion}"


def check_templates(*, templates: list[Template], variants: int) -> None:
    """Refuse templates that could only spoil the data."""
    for number, template in enumerate(templates, start=1):
        if template == Template():
            raise InputError(f"template {number} changes nothing", "Write something around `{prompt}`.")
        if not PLACEHOLDERS.search(template.prompt):
            raise InputError(
                f"the prompt of template {number} is the same for every pair", "Put `{prompt}` or `{completion}` in."
            )
    if variants > len(templates):
        raise InputError(f"{variants} variants of {len(templates)} templates", "Lower it, or write more templates.")


@component(gives="prompt-completion", needs={"frame": {"prompt-completion"}}, check=check_templates)
def templates(
    frame: pl.DataFrame,
    ctx: Context,
    *,
    templates: Annotated[list[Template], MinLen(1)],
    variants: Annotated[int, Ge(1)] = 1,
) -> pl.DataFrame:
    """Add variants of each training pair, made from templates; the other splits stay as they are.

    Which templates a pair gets depends on the seed and its id alone. A variant has the id of its pair
    with the template's number (`a1b2~2`) and the same group.

    Args:
        templates: what variants are made from: `prompt` and `completion`, with `{prompt}` and `{completion}`.
        variants: how many each training pair gets, each from another template.
    """
    from luthier_synthesize._templates import with_variants

    return with_variants(frame, ctx, templates, variants)


@hookspec
def luthier_synthesizers() -> Iterable[Callable[..., Any]]:
    """Give the synthesizers: training examples in, the same and more of them out.

    A synthesizer asks for `frame` or, where it must see everything, for `data`; and for `ctx` if it wants.
    It keeps the form of the examples and what is not in the split `train`; a new row has an id of its
    own and the `group` of the row that it was made from.
    """
    raise NotImplementedError


@hookimpl
def luthier_stages() -> list[Stage]:
    """Give the stage `synthesize`."""
    return [
        Stage(
            name="synthesize",
            hook="luthier_synthesizers",
            gives="dataset",
            title="Synthesizers: more training examples",
            one_of=("frame", "data"),
            optional=("ctx",),
        )
    ]


@hookimpl(specname="luthier_synthesizers")
def our_synthesizers() -> list[Callable[..., Any]]:
    """Give this plugin's own synthesizer."""
    return [templates]
