"""What the terminal shows of a round."""

from __future__ import annotations

from collections.abc import Iterator

from luthier_feedback.improvement.comparing import Comparison
from luthier_feedback.improvement.outcome import Outcome

MARKS = {True: "\N{CHECK MARK}", False: "\N{BALLOT X}"}


def lines(outcome: Outcome) -> Iterator[str]:
    """The decision, its numbers and its reasons."""
    if outcome.verdict == "unchanged":
        yield outcome.reasons[0]
        return
    for each in outcome.comparisons:
        yield f"{MARKS[each.passed]} {told(each)}"
    for name, why in outcome.not_compared.items():
        yield f"  {name}: not compared with the champion, {why}; its gate judges it"
    for gate in outcome.gates:
        if gate["verdict"] == "refused":
            yield f"{MARKS[False]} {gate['step']}: {gate['reason']}"
    yield f"{headline(outcome)}"
    yield f"page: {outcome.page}"


def told(each: Comparison) -> str:
    """A comparison in a line: what must be better, what must not be worse."""
    must = "must be better" if each.role == "asked" else "must not be worse"
    return f"{must}: {each.reason}"


def headline(outcome: Outcome) -> str:
    """The decision in a line."""
    would = "would be " if outcome.dry_run else ""
    if outcome.verdict == "refused":
        stays = f"; number {outcome.champion.number} stays champion" if outcome.champion.number else ""
        return f"{would}refused: the run {outcome.run} is not promoted{stays}"
    number = "" if outcome.dry_run else f", number {outcome.number}"
    return f"{would}promoted: the run {outcome.run} is champion {outcome.recipe!r}{number}"
