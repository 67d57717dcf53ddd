"""What the terminal shows of a round."""

from __future__ import annotations

from collections.abc import Iterator

from luthier_feedback.improvement.comparing import Comparison
from luthier_feedback.improvement.outcome import Outcome

MARKS = {True: "\N{CHECK MARK}", False: "\N{BALLOT X}"}


def lines(outcome: Outcome) -> Iterator[str]:
    """The decision, its numbers and its reasons; of one that is refused the error tells the decision."""
    if outcome.verdict == "unchanged":
        yield outcome.reasons[0]
        return
    for each in outcome.comparisons:
        yield f"{MARKS[each.passed]} {told(each)}"
    for name, why in outcome.not_compared.items():
        yield f"  {name}: not compared with the champion, {why}; its gate judges it"
    if outcome.verdict == "refused":
        compared = [each.reason for each in outcome.comparisons]
        yield from (f"{MARKS[False]} {reason}" for reason in outcome.reasons if reason not in compared)
        return
    yield headline(outcome)
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
