"""Prompt templates of `classification`; read while planning, so without a heavy library."""

from __future__ import annotations

import string

from luthier import InputError

FIELDS = ("text", "labels")
DEFAULT_PROMPT = "Label the text with one of: {labels}.\n\n{text}"


def check_template(template: str) -> None:
    """See that a template can be filled.

    Raises:
        InputError: if a brace is left open, a field is unknown, or `{text}` is missing.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise _refused(f"{error} in {template!r}") from None
    fields = [field for _, field, _, _ in parts if field is not None]
    for _, field, form, conversion in parts:
        if field is not None and (field not in FIELDS or form or conversion):
            raise _refused(f"{{{field}}} is not a field in {template!r}")
    if "text" not in fields:
        raise _refused(f"there is no {{text}} in {template!r}")


def fill(template: str, **values: str) -> str:
    """The template with its fields filled in; what is filled in is never read as a template."""
    return template.format_map(values)


def _refused(what: str) -> InputError:
    return InputError(
        f"prompt: {what}",
        "Write {text} where the text goes, {labels} for the list of labels, {{ and }} for braces.",
    )
