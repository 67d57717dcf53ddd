"""Feedback in a terminal: what people wrote is shown as text, whatever a terminal would make of it."""

from __future__ import annotations

from luthier_feedback.prompts import as_text
from luthier_feedback.rows import Row

VOTES = {1: "+1", -1: "-1", None: ""}


def harmless(text: str, *, lines: bool = False) -> str:
    """A text without control characters, which move cursors, change colours and titles.

    Args:
        text: of anybody.
        lines: whether ends of lines and tabs stay; else they are blanks.
    """
    kept = "\n\t" if lines else ""
    spaced = text if lines else " ".join(text.split())
    return "".join(each if each.isprintable() or each in kept else "\N{REPLACEMENT CHARACTER}" for each in spaced)


def shortened(text: str, width: int) -> str:
    """A text on one line of at most `width` characters."""
    line = harmless(text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def table(rows: list[Row], width: int) -> list[str]:
    """A heading, and a line for each row."""
    cells = [("ID", "TIME", "VOTE", "STATE", "SOURCE", "PROMPT", "ANSWER", "CORRECTION")]
    cells += [
        (
            shortened(row.id, 36),
            row.time.strftime("%Y-%m-%d %H:%M"),
            VOTES[row.vote],
            row.state,
            shortened(row.source, 16),
            shortened(as_text(row.prompt), 32),
            shortened(row.answer, 24),
            shortened(row.correction or "", 24),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def page(row: Row) -> list[str]:
    """All of a row, for a reviewer."""
    facts = {
        "source": row.source,
        "person": row.person or "",
        "tags": ", ".join(row.tags),
        "vote": VOTES[row.vote],
        "consent": "yes" if row.consent else "no",
        "model": (row.model or "")[:12],
    }
    lines = [f"{row.id}  {row.time:%Y-%m-%d %H:%M}  {row.state}"]
    lines.append("  ".join(f"{name}: {shortened(value, 40)}" for name, value in facts.items() if value))
    for turn in row.prompt:
        lines += ["", f"{turn.role}:", harmless(turn.content, lines=True)]
    lines += ["", "answer:", harmless(row.answer, lines=True)]
    if row.correction is not None:
        lines += ["", "correction:", harmless(row.correction, lines=True)]
    return lines
