"""HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def html_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts, which are escaped; the notebook's own style does the rest."""
    head = "".join(_cell("th", header) for header in headers)
    body = "".join(f"<tr>{''.join(_cell('td', text) for text in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_line(text: str) -> str:
    """A line of plain text."""
    return f"<div>{escape(text)}</div>"


def _cell(tag: str, text: str) -> str:
    # Notebooks set tables to the right, which is for numbers.
    return f'<{tag} style="text-align:left;white-space:pre-wrap">{escape(text)}</{tag}>'
