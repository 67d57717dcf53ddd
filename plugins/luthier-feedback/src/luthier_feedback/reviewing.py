"""Reviewing in the terminal: a row, a key, the next row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import typer

from luthier_feedback.log import FeedbackLog
from luthier_feedback.rows import Row, State
from luthier_feedback.showing import page

CHOICES: dict[str, State | None] = {"a": "accepted", "r": "rejected", "e": "edited", "s": None, "q": None}
QUESTION = "[a]ccept  [r]eject  [e]dit the correction  [s]kip  [q]uit"


def review(log: FeedbackLog, rows: Iterable[Row], ask: Callable[[str], str]) -> Counter[str]:
    """Show rows one by one and note what the reviewer says of each; gives how many of each state.

    Args:
        log: gets each answer at once, so that stopping loses none.
        rows: to be reviewed.
        ask: gives the reviewer's answer to a question.
    """
    said: Counter[str] = Counter()
    for row in rows:
        typer.echo("\n" + "\n".join(page(row)) + "\n")
        choice = _choice(ask)
        if choice == "q":
            break
        state = CHOICES[choice]
        if state is None:
            said["skipped"] += 1
            continue
        correction = ask("The correction") if state == "edited" else None
        log.review(row.id, state, correction=correction)
        said[state] += 1
    return said


def _choice(ask: Callable[[str], str]) -> str:
    while True:
        choice = ask(QUESTION).strip().lower()[:1]
        if choice in CHOICES:
            return choice
        typer.echo("Type one of the letters in brackets.")
