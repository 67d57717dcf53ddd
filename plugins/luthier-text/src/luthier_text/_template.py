"""Prompt templates: read while planning, so without a heavy library."""

from __future__ import annotations

import string
from dataclasses import dataclass

from luthier import InputError


@dataclass(frozen=True)
class Template:
    """A prompt template: literal texts, and the columns between them.

    Attributes:
        literals: one more than columns.
        columns: the names of the columns, in order; may repeat.
    """

    literals: tuple[str, ...]
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, template: str, name: str = "prompt") -> Template:
        """Read `{column}`, `{{` and `}}`.

        Args:
            template: the text.
            name: the parameter that it is the value of, for the message.

        Raises:
            InputError: if a brace is left open, or a field has more than a column's name.
        """
        literals, columns, literal = [], [], ""
        try:
            for text, field, form, conversion in string.Formatter().parse(template):
                literal += text
                if field is None:
                    continue
                if not field or form or conversion or any(mark in field for mark in ".["):
                    raise ValueError(f"{{{field}}} is not the name of a column")
                literals.append(literal)
                columns.append(field)
                literal = ""
        except ValueError as error:
            raise InputError(
                f"{name}: {error} in {template!r}", "Write {column} for a column's value, {{ and }} for braces."
            ) from None
        return cls((*literals, literal), tuple(columns))

    @property
    def characters(self) -> int:
        """The length of the literal texts together."""
        return sum(map(len, self.literals))


def parse_prompt(prompt: str, limit: int) -> Template:
    """The template of prompts that are cut at `limit` characters.

    Raises:
        InputError: if it cannot be read, or leaves no room for the text.
    """
    template = Template.parse(prompt)
    if "text" in template.columns and template.characters >= limit:
        raise InputError(
            f"prompt: {template.characters} characters without {{text}} leave no room for it within "
            f"max_prompt_characters: {limit}",
            "Shorten the prompt, or raise max_prompt_characters.",
        )
    return template


def parse_with_columns(template: str, name: str) -> Template:
    """A template that stands for something of the row: one of a completion.

    Raises:
        InputError: if it cannot be read, or names no column.
    """
    parsed = Template.parse(template, name)
    if not parsed.columns:
        raise InputError(
            f"{name}: {template!r} names no column, so it is the same for every row", "Write {column} for its value."
        )
    return parsed
