"""The formatters: documents in, training examples out. Signatures and the configuration of splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Interval, MinLen

from luthier import InputError, component

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
        held_out: a column of true and false that says what is the split `test`: what is true, with all that it is
            kept together with, and nothing that is false. The shares are for the rest; of rows without a value (of
            another dataset that was mixed in) `test` goes on to take its own. The source `feedback` has one.
    """

    valid: Fraction = 0.02
    test: Fraction = 0.05
    by: str = "group"
    salt: str = ""
    held_out: str | None = None

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


@component(gives="prompt-completion", needs={"data": {"documents"}}, check=_check_prompt)
def translation(
    data: Dataset,
    ctx: Context,
    *,
    prompt: Annotated[str, MinLen(1)] = "Translate to {target_language}:\n{text}",
    original: str = "text",
    target: str = "translation",
    split: Split = Split(),
    max_prompt_characters: Annotated[int, Ge(40)] = 2000,
) -> Iterator[Frame]:
    """Make prompts in one language and completions in another of pairs.

    The defaults are the columns of `gettext` and `debian-descriptions`; `original: translation` with
    `target: text` learns the other direction. Rows without a value in either column are dropped.

    Args:
        prompt: the template; `{text}` stands for the original, `{any other column}` for the row's value.
        original: the column that is translated.
        target: the column that is the completion.
        split: the shares of validation and test, and what must stay together.
        max_prompt_characters: longer prompts are made to fit by cutting `{text}` at the end of a word. The
            completion is not cut, so drop long pairs with `length` before.

    Raises:
        InputError: if the template cannot be read or leaves no room for the text, a column is not there, or a
            split comes out empty.
    """
    from luthier_text._examples import translation_examples

    return translation_examples(data, ctx, prompt, (original, target), split, limit=max_prompt_characters)


def _check_pair(*, prompt: str, completion: str, max_prompt_characters: int, **_: object) -> None:
    from luthier_text._template import parse_prompt, parse_with_columns

    parse_prompt(prompt, max_prompt_characters)
    parse_with_columns(completion, "completion")


@component(gives="prompt-completion", needs={"data": {"documents"}}, check=_check_pair)
def prompt_completion(
    data: Dataset,
    ctx: Context,
    *,
    prompt: Annotated[str, MinLen(1)],
    completion: Annotated[str, MinLen(1)],
    split: Split = Split(),
    max_prompt_characters: Annotated[int, Ge(40)] = 2000,
) -> Iterator[Frame]:
    """Make prompts and completions of any columns, with a template for each.

    Rows that lack a value for the completion are dropped.

    Args:
        prompt: the template; `{text}` and `{any other column}` stand for the row's values, `{{` for a brace.
        completion: the template of the completion, of the same form.
        split: the shares of validation and test, and what must stay together.
        max_prompt_characters: longer prompts are made to fit by cutting `{text}` at the end of a word.

    Raises:
        InputError: if a template cannot be read or leaves no room for the text, a column is not there, or a
            split comes out empty.
    """
    from luthier_text._examples import prompt_completion_examples

    return prompt_completion_examples(data, ctx, prompt, completion, split, limit=max_prompt_characters)


def _check_chat(*, prompt: str, answer: str | None, messages: str | None, **_: object) -> None:
    from luthier_text._template import Template, parse_with_columns

    if (answer is None) == (messages is None):
        raise InputError("chat needs either `answer` or `messages`", "Give one of them.")
    Template.parse(prompt)
    if answer is not None:
        parse_with_columns(answer, "answer")


@component(gives="chat", needs={"data": {"documents"}}, check=_check_chat)
def chat(
    data: Dataset,
    ctx: Context,
    *,
    prompt: Annotated[str, MinLen(1)] = "{text}",
    answer: Annotated[str, MinLen(1)] | None = None,
    messages: str | None = None,
    system: Annotated[str, MinLen(1)] | None = None,
    split: Split = Split(),
) -> Iterator[Frame]:
    """Make conversations: of a prompt and an answer, or of a column that holds them already.

    Each example is a list of messages with `role` and `content`. Rows without a prompt or an answer are
    dropped. So are, and the log says how many, conversations that are malformed: another role than `system`,
    `user` and `assistant`, a message without content, a system message that is not the first, or an end that
    is not the assistant's.

    Args:
        prompt: the template of the user's message; `{text}` and `{any other column}` stand for values.
        answer: the template of the assistant's message.
        messages: instead of both, the column of conversations: lists of messages, or the same as JSON text.
        system: the system message of every conversation that does not begin with one.
        split: the shares of validation and test, and what must stay together.

    Raises:
        InputError: if a template cannot be read, a column is not there or holds no conversations, or a split
            comes out empty.
    """
    from luthier_text._chat import conversations_of_column, conversations_of_templates

    if messages is not None:
        return conversations_of_column(data, ctx, messages, system, split)
    return conversations_of_templates(data, ctx, (prompt, answer or ""), system, split)


@component(gives="classification", needs={"data": {"documents"}})
def classification(
    data: Dataset,
    ctx: Context,
    *,
    label: str,
    column: str = "text",
    classes: Annotated[list[str], MinLen(2)] | None = None,
    min_class_size: Annotated[int, Ge(1)] = 1,
    split: Split = Split(),
) -> Iterator[Frame]:
    """Make examples for classification: a text and the name of its class.

    Rows without a text or a label are dropped, as are those of other classes than `classes` and of classes
    that are too small. The table `classes` of the step lists those that stay, sorted by name, with their
    sizes in each split; number them in that order. `classes` keeps them the same when the data changes.

    Args:
        label: the column of the classes' names.
        column: the column that is the text.
        classes: the names of all classes; those in the data by default.
        min_class_size: classes of fewer rows are dropped; one that `classes` names is an error instead.
        split: the shares of validation and test, and what must stay together.

    Raises:
        InputError: if a column is not there, fewer than two classes are left, a class that is named is too
            small or has no rows to train on, or a split comes out empty.
    """
    from luthier_text._classes import classification_examples

    return classification_examples(data, ctx, (column, label), classes, split, least=min_class_size)


@component(gives="preference", needs={"data": {"documents"}}, check=_check_prompt)
def preference(
    data: Dataset,
    ctx: Context,
    *,
    prompt: Annotated[str, MinLen(1)] = "{text}",
    chosen: str = "chosen",
    rejected: str = "rejected",
    split: Split = Split(),
    max_prompt_characters: Annotated[int, Ge(40)] = 2000,
) -> Iterator[Frame]:
    """Make pairs of answers to a prompt, of which one was preferred; the tuner `dpo` learns from them.

    Rows that lack an answer, or whose two answers are the same, are dropped.

    Args:
        prompt: the template; `{text}` and `{any other column}` stand for the row's values, `{{` for a brace.
        chosen: the column of the answer that was preferred.
        rejected: the column of the other one.
        split: the shares of validation and test, and what must stay together.
        max_prompt_characters: longer prompts are made to fit by cutting `{text}` at the end of a word.

    Raises:
        InputError: if the template cannot be read or leaves no room for the text, a column is not there, or a
            split comes out empty.
    """
    from luthier_text._preferences import preference_examples

    return preference_examples(data, ctx, prompt, (chosen, rejected), split, limit=max_prompt_characters)


@component(gives="unpaired-preference", needs={"data": {"documents"}}, check=_check_prompt)
def unpaired_preference(
    data: Dataset,
    ctx: Context,
    *,
    prompt: Annotated[str, MinLen(1)] = "{text}",
    completion: str = "completion",
    label: str = "label",
    liked: Annotated[list[str], MinLen(1)] | None = None,
    split: Split = Split(),
    max_prompt_characters: Annotated[int, Ge(40)] = 2000,
) -> Iterator[Frame]:
    """Make answers that were liked or not, each by itself (thumbs up and down); the tuner `kto` learns from them.

    Rows without an answer or a judgement are dropped.

    Args:
        prompt: the template; `{text}` and `{any other column}` stand for the row's values, `{{` for a brace.
        completion: the column of the answer.
        label: the column of the judgement: of true and false, of numbers, where those above 0 are liked, or of
            texts, with `liked`.
        liked: the texts that mean that an answer was liked: `[up]`, `["5", "4"]`; all others mean that it was not.
        split: the shares of validation and test, and what must stay together.
        max_prompt_characters: longer prompts are made to fit by cutting `{text}` at the end of a word.

    Raises:
        InputError: if the template cannot be read or leaves no room for the text, a column is not there, the
            judgements are texts and `liked` is not given or names none of them, or a split comes out empty.
    """
    from luthier_text._preferences import unpaired_examples

    return unpaired_examples(data, ctx, prompt, (completion, label), split, liked=liked, limit=max_prompt_characters)
