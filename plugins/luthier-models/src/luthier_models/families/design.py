"""What a recipe may say of a fresh model's layers, and which families have it. Light: loaded while planning."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from luthier import InputError
from luthier_models.families.sizes import parse_count


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is settled by the user; None leaves it to the budget or to the family. See `luthier_models.fresh`."""

    layers: int | None = None
    decoder_layers: int | None = None
    width: int | None = None
    heads: int | None = None
    key_value_heads: int | None = None
    mlp_width: int | None = None
    tied: bool = True
    max_length: int = 1024
    rope_base: float | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class Traits:
    """What planning knows of a family.

    Attributes:
        form: the form of its models.
        own: the parameters of `Design` that it has besides those that all have.
    """

    form: str
    own: frozenset[str]


COMMON = frozenset({"layers", "width", "heads", "mlp_width", "dropout"})
_DECODER = Traits("causal-lm", frozenset({"key_value_heads", "tied", "max_length", "rope_base"}))

TRAITS: dict[str, Traits] = {
    "llama": _DECODER,
    "qwen3": _DECODER,
    "t5": Traits("seq2seq-lm", frozenset({"decoder_layers"})),
    "marian": Traits("seq2seq-lm", frozenset({"decoder_layers", "max_length"})),
}
"""By the family's name."""


def form_of(*, family: str, **_: object) -> str:
    """The form that a family's models have; takes the whole configuration of `fresh`."""
    return TRAITS[family].form


def check_design(*, family: str, parameters: str, **configuration: Any) -> None:
    """Refuse a budget that is no number, and what the family does not have; takes the configuration of `fresh`.

    Raises:
        InputError: naming it.
    """
    parse_count(parameters)
    traits = TRAITS[family]
    foreign = [
        each.name
        for each in fields(Design)
        if each.name not in COMMON | traits.own and configuration.get(each.name, each.default) != each.default
    ]
    if foreign:
        raise InputError(
            f"the family {family} has no {', '.join(foreign)}",
            f"Leave it out; it has: {', '.join(sorted(COMMON | traits.own))}.",
        )
