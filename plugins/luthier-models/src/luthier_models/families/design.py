"""What a recipe may say of a fresh model's layers, and which families have it. Light: loaded while planning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from luthier import InputError


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is settled by the user; None leaves it to the budget or to the family. See `luthier_models.fresh`."""

    norm: str | None = None
    norm_position: str | None = None
    positions: str | None = None
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

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> Design:
        """The design in a configuration of `fresh`."""
        return cls(**{each.name: configuration[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class Traits:
    """What planning knows of a family.

    Attributes:
        form: the form of its models.
        architecture: their class in transformers, as `config.json` names it.
        norm: see `luthier_models.fresh`, also for the next two.
        norm_position: see `norm`.
        positions: see `norm`.
        own: the parameters of `Design` that it has besides those that all have.
    """

    form: str
    architecture: str
    norm: str
    norm_position: str
    positions: str
    own: frozenset[str]

    def lacks(self, design: Design) -> list[str]:
        """What the design has and the family has not, as a recipe writes it."""
        found = []
        for each in fields(Design):
            wish = getattr(design, each.name)
            if each.name in _LAYERS:
                if wish not in (None, getattr(self, each.name)):
                    found.append(f"{each.name}: {wish}")
            elif each.name not in COMMON | self.own and wish != each.default:
                found.append(each.name)
        return found

    def describe(self) -> str:
        """The family's layers and parameters in words."""
        layers = ", ".join(f"{name}: {getattr(self, name)}" for name in _LAYERS)
        return f"{layers}, and {', '.join(sorted(COMMON | self.own))}"


_LAYERS = ("norm", "norm_position", "positions")
COMMON = frozenset({"layers", "width", "heads", "mlp_width", "dropout"})
_LEARNED = frozenset({"tied", "max_length"})
_UNPLACED = _LEARNED | {"key_value_heads"}
_ROTARY = _UNPLACED | {"rope_base"}

TRAITS: dict[str, Traits] = {
    "llama": Traits("causal-lm", "LlamaForCausalLM", "rmsnorm", "before", "rotary", _ROTARY),
    "qwen3": Traits("causal-lm", "Qwen3ForCausalLM", "rmsnorm", "before", "rotary", _ROTARY),
    "smollm3": Traits("causal-lm", "SmolLM3ForCausalLM", "rmsnorm", "before", "none", _UNPLACED),
    "olmo2": Traits("causal-lm", "Olmo2ForCausalLM", "rmsnorm", "after", "rotary", _ROTARY),
    "stablelm": Traits("causal-lm", "StableLmForCausalLM", "layernorm", "before", "rotary", _ROTARY),
    "gpt2": Traits("causal-lm", "GPT2LMHeadModel", "layernorm", "before", "learned", _LEARNED),
    "opt": Traits("causal-lm", "OPTForCausalLM", "layernorm", "after", "learned", _LEARNED),
    "t5": Traits(
        "seq2seq-lm", "T5ForConditionalGeneration", "rmsnorm", "before", "relative", frozenset({"decoder_layers"})
    ),
    "marian": Traits(
        "seq2seq-lm", "MarianMTModel", "layernorm", "after", "sinusoidal", frozenset({"decoder_layers", "max_length"})
    ),
    "modernbert": Traits(
        "encoder", "ModernBertModel", "layernorm", "before", "rotary", frozenset({"max_length", "rope_base"})
    ),
}
"""By the family's name, which is transformers' `model_type`; without one the first that has what is wished for."""


def choose_family(family: str | None, design: Design) -> str:
    """The family of a design: the one that is named, or the first that has all of it.

    Raises:
        InputError: naming what the family, or every family, lacks, and those that lack least.
    """
    lacking = {name: traits.lacks(design) for name, traits in TRAITS.items()}
    able = next((name for name, lacks in lacking.items() if not lacks), None)
    if family is None:
        if able is not None:
            return able
        raise InputError("no family has all that the recipe wishes for", f"The closest: {_closest(lacking)}.")
    if not lacking[family]:
        return family
    alternative = f"Leave `family` out, or take {able}, which has it." if able else f"The closest: {_closest(lacking)}."
    raise InputError(
        f"the family {family} has no {', '.join(lacking[family])}",
        f"It has {TRAITS[family].describe()}. {alternative}",
    )


def _closest(lacking: Mapping[str, list[str]]) -> str:
    """The families that lack least, what they have and what they lack."""
    least = min(len(lacks) for lacks in lacking.values())
    return "; ".join(
        f"{name} ({TRAITS[name].describe()}) without {', '.join(lacks)}"
        for name, lacks in lacking.items()
        if len(lacks) == least
    )


def form_of(*, family: str | None, **configuration: Any) -> str:
    """The form of the models; takes the whole configuration of `fresh`."""
    return TRAITS[choose_family(family, Design.of(configuration))].form
