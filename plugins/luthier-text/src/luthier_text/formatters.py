"""The formatters: documents in, training examples out. Signatures and the configuration of splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Interval, MinLen

from luthier import component

if TYPE_CHECKING:
    from luthier import Context, Dataset, Frame

Fraction = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class Split:
    """How examples are divided into `train`, `valid` and `test`.

    A group goes where the hash of its name says, whole. So a document keeps its side when others are
    added, and one that a model was tested on is not trained on later. The price: the shares are those of
    groups, not of rows, and a few large groups make them lumpy; choose another `salt` if they fall badly.

    Attributes:
        valid: the share of groups for validation while training.
        test: the share of groups held out for the final validators.
        by: the column whose values must not be split apart (`package`). Rows that share a `group` (siblings,
            near-duplicates) are kept together too: what is hashed is the connected component of both.
        salt: a text that is hashed along; another one gives another split.
    """

    valid: Fraction = 0.02
    test: Fraction = 0.05
    by: str = "group"
    salt: str = ""

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to train on.

        Raises:
            ValueError: which pydantic reports while planning, at the place in the recipe.
        """
        if self.valid + self.test >= 1:
            raise ValueError(f"valid {self.valid:g} and test {self.test:g} leave nothing to train on")


def _check_prompt(*, prompt: str, max_prompt_characters: int, **_: object) -> None:
    from luthier_text._template import parse_prompt

    parse_prompt(prompt, max_prompt_characters)


@component(gives="prompt-completion", needs={"data": {"documents"}}, check=_check_prompt)
def summarization(
    data: Dataset,
    ctx: Context,
    *,
    prompt: Annotated[str, MinLen(1)] = "Summarize in one line:\n{text}",
    target: str = "summary",
    split: Split = Split(),
    max_prompt_characters: Annotated[int, Ge(40)] = 2000,
) -> Iterator[Frame]:
    """Make prompts and completions of documents and a column that sums them up.

    Rows whose target is empty or missing are dropped. `group` of the examples is the component that the
    split kept together.

    Args:
        prompt: the template; `{text}` and `{any other column}` stand for the row's values, `{{` for a brace.
        target: the column that is the completion.
        split: the shares of validation and test, and what must stay together.
        max_prompt_characters: longer prompts are made to fit by cutting `{text}` at the end of a word.

    Raises:
        InputError: if the template cannot be read or leaves no room for the text, a column is not there, or a
            split comes out empty.
    """
    from luthier_text._examples import summarization_examples

    return summarization_examples(data, ctx, prompt, target, split, limit=max_prompt_characters)


@component(gives="language-modelling", needs={"data": {"documents"}})
def language_modelling(
    data: Dataset,
    ctx: Context,
    *,
    column: str = "text",
    split: Split = Split(),
) -> Iterator[Frame]:
    """Make examples for language modelling: the text as it is, and its split.

    Args:
        column: the column that is the text.
        split: the shares of validation and test, and what must stay together.

    Raises:
        InputError: if a column is not there, or a split comes out empty.
    """
    from luthier_text._examples import language_modelling_examples

    return language_modelling_examples(data, ctx, column, split)
