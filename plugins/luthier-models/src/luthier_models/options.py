"""What planning knows of a new model: its tokenizer, whether its budget suffices, what later steps ask of it. Light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from luthier import InputError
from luthier_models.families.design import TRAITS, Design, choose_family
from luthier_models.families.sizes import parse_count
from luthier_models.families.table import FAMILIES
from luthier_models.recurrent import CAUSAL_LMS, SEQ2SEQ_LMS
from luthier_models.recurrent.seq2seq_sizes import pair_shape
from luthier_models.recurrent.sizes import RecurrentWishes, recurrent_shape

if TYPE_CHECKING:
    from luthier import Known


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokenizer of a fresh model, trained on the training split.

    Attributes:
        kind: what a token is: a `byte`, a `character`, a `word`, or a piece that byte-pair encoding (`bpe`) or a
            unigram model finds.
        size: tokens at most, with the three special ones; `byte` has 259.
        lowercase: read and write lower case only.
    """

    kind: Literal["byte", "character", "word", "bpe", "unigram"] = "bpe"
    size: Annotated[int, Ge(4)] = 4096
    lowercase: bool = False


SPECIAL_TOKENS = 3
"""Of padding, of the end of a text, and of what is unknown."""

_ALPHABET = {"byte": 256, "bpe": 256}
"""The tokens that a kind has besides, whatever the texts are; of the others it is known that there is one."""

_EXTENDABLE = ("byte", "bpe")
"""The kinds that are byte-pair encoding, the first without any pairs."""


def least_size(vocabulary: Vocabulary) -> int:
    """The tokens that a tokenizer has at the least.

    Raises:
        InputError: if they are more than its size.
    """
    least = SPECIAL_TOKENS + _ALPHABET.get(vocabulary.kind, 1)
    if vocabulary.size < least and vocabulary.kind != "byte":
        raise InputError(
            f"a {vocabulary.kind} tokenizer of {vocabulary.size} tokens is too small", f"It needs at least {least}."
        )
    return least


def check_fresh(*, family: str | None, parameters: str, tokenizer: Vocabulary, **configuration: Any) -> None:
    """Refuse a design that no family has, or that no model within the budget has; takes the configuration of `fresh`.

    Raises:
        InputError: naming what is wrong, and the smallest model that there could be.
    """
    design = Design.of(configuration)
    chosen = FAMILIES[choose_family(family, design)]
    # The smallest has one layer, where it may have any number.
    chosen.shape(parse_count(parameters), least_size(tokenizer), replace(design, layers=design.layers or 1))


def check_rnn_lm(**configuration: Any) -> None:
    """The same of `rnn-lm`.

    Raises:
        InputError: as `check_fresh` does.
    """
    _check_recurrent(recurrent_shape, **configuration)


def check_rnn_seq2seq(**configuration: Any) -> None:
    """The same of `rnn-seq2seq`.

    Raises:
        InputError: as `check_fresh` does, or if the width is odd.
    """
    _check_recurrent(pair_shape, **configuration)


def _check_recurrent(
    shape: Callable[[int, int, RecurrentWishes], object], *, parameters: str, tokenizer: Vocabulary, **wishes: Any
) -> None:
    shape(parse_count(parameters), least_size(tokenizer), RecurrentWishes(**wishes))


def traits_of_fresh(*, family: str | None, tokenizer: Vocabulary, **configuration: Any) -> dict[str, Any]:
    """What later steps may ask of a model of `fresh`; takes its configuration."""
    chosen = choose_family(family, Design.of(configuration))
    return _traits(chosen, TRAITS[chosen].architecture, tokenizer) | {"positions": TRAITS[chosen].positions}


def traits_of_rnn_lm(*, tokenizer: Vocabulary, **_: Any) -> dict[str, Any]:
    """The same of `rnn-lm`."""
    [(model_type, architecture)] = CAUSAL_LMS.items()
    return _traits(model_type, architecture, tokenizer)


def traits_of_rnn_seq2seq(*, tokenizer: Vocabulary, **_: Any) -> dict[str, Any]:
    """The same of `rnn-seq2seq`."""
    [(model_type, architecture)] = SEQ2SEQ_LMS.items()
    return _traits(model_type, architecture, tokenizer)


def _traits(model_type: str, architecture: str, tokenizer: Vocabulary) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "architecture": architecture,
        "tokenizer": tokenizer.kind,
        "chat_template": False,
    }


def check_extended(_configuration: Mapping[str, Any], *, model: Known, **_: Known) -> None:
    """Refuse to extend a vocabulary that is no byte-pair encoding; takes what is known of a tuner's inputs.

    Raises:
        InputError: naming its kind.
    """
    kind = model.traits.get("tokenizer")
    if kind not in (None, *_EXTENDABLE):
        raise cannot_extend(kind)


def cannot_extend(kind: str) -> InputError:
    """The error of a vocabulary of a kind that has no pairs to go on with."""
    return InputError(
        f"a vocabulary of the kind {kind} cannot be extended",
        "Byte-pair encoding can, as the tokenizers of Llama, Qwen, SmolLM, Mistral and GPT-2 are; "
        "or make a new model with `fresh`, whose tokenizer is trained on the data.",
    )


def check_headed(_configuration: Mapping[str, Any], *, model: Known, **_: Known) -> None:
    """Refuse to put a head on a recurrent model; takes what is known of a tuner's inputs.

    Raises:
        InputError: naming its architecture.
    """
    if model.traits.get("architecture") in CAUSAL_LMS.values():
        raise no_classifier(model.traits["architecture"])


def no_classifier(architecture: str) -> InputError:
    """The error of an architecture that transformers has no classifier of."""
    return InputError(
        f"transformers has no classifier of the architecture {architecture}, so there is no head for it",
        "Take a decoder of the Llama family or GPT-2's form, or an encoder (`family: modernbert`).",
    )
