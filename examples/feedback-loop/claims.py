"""What the loop claims, each with the numbers that it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from audience import CRAWLER, FLOOD

import luthier

if TYPE_CHECKING:
    from loop import Loop

UNSEEN = (("unseen", "perplexity"), ("unseen-answers", "rougeL"))
"""The validators of the set that decides nothing, and what is read of them."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Round:
    """A round of feedback and what came of it.

    Attributes:
        kind: who sent it: `people`, `poison`, `noise`.
        sent: rows that the server acknowledged.
        event: what the gate decided: `promoted` or `refused`.
        reasons: why.
        run: that was decided on.
        trained: how many rows of each source it was trained on, those of earlier rounds too.
        wrong: the sources that sent what is wrong.
        champion: the hash of the champion after it.
        page: that shows it.
        minutes: of `luthier improve`.
    """

    kind: str
    sent: int
    event: str
    reasons: list[str]
    run: str
    trained: dict[str, int]
    wrong: list[str]
    champion: str
    page: str
    minutes: float

    @property
    def trained_wrong(self) -> int:
        """How many wrong rows it was trained on."""
        return sum(self.trained.get(source, 0) for source in self.wrong)


@dataclass(frozen=True)
class Claim:
    """A sentence, whether it holds, and the numbers."""

    text: str
    holds: bool
    numbers: str


def all_claims(first: luthier.Run, loop: Loop, home: Path) -> list[Claim]:
    """Hold what was claimed against what happened."""
    people = [each for each in loop.rounds if each.kind == "people"]
    champions = [first, *(luthier.find_run(each.run, home=home) for each in people)]
    promoted = Claim(
        "every round of people is promoted",
        all(each.event == "promoted" for each in people),
        ", ".join(f"{sum(each.trained.values())} rows, {each.event}" for each in people),
    )
    risen = [_better(champions, step, metric) for step, metric in UNSEEN]
    refused = [_refused(loop, kind) for kind in ("poison", "noise")]
    return [promoted, *risen, *refused, _flood_left_out(loop), _restored(loop), _nothing_dropped(loop)]


def difference(before: luthier.Run, after: luthier.Run, step: str, metric: str) -> tuple[float, float]:
    """The interval of a metric of `after` minus that of `before`, by the paired bootstrap over the same examples."""
    reports = [run.report(step) for run in (before, after)]
    theirs, mine = (report.metric_records() if report else [] for report in reports)
    bound = luthier.Bound(metric, "at_least", "champion", 0.0, CONFIDENCE)
    interval = luthier.judge(bound, mine, theirs, seed=after.data.seed).interval
    assert interval is not None
    return interval


def _better(runs: Sequence[luthier.Run], step: str, metric: str) -> Claim:
    """The last run is surely better than the first, and by perplexity each than the one before."""
    values = [run.metrics[step][metric] for run in runs]
    less = metric == "perplexity"
    steady = not less or all(after < before for before, after in pairwise(values))
    low, high = difference(runs[0], runs[-1], step, metric)
    each = [difference(before, after, step, metric) for before, after in pairwise(runs)]
    numbers = " → ".join(f"{value:.4g}" for value in values)
    told = "; ".join(f"{one:+.3g} to {other:+.3g}" for one, other in each)
    return Claim(
        f"{metric} on packages never seen gets better {'with every round of people' if less else 'over the rounds'}",
        steady and (high < 0 if less else low > 0),
        f"{numbers} (differences at 95%: {told}; from first to last {low:+.3g} to {high:+.3g})",
    )


def _refused(loop: Loop, kind: str) -> Claim:
    """The rounds of a kind were trained on, and refused, and the champion stayed."""
    rounds = [(before, each) for before, each in pairwise(loop.rounds) if each.kind == kind]
    holds = all(each.event == "refused" and each.champion == before.champion for before, each in rounds)
    reached = all(each.trained_wrong for _, each in rounds)
    numbers = "; ".join(
        f"trained on {each.trained_wrong} wrong of {sum(each.trained.values())} rows; {each.event}: {each.reasons[0]}"
        for _, each in rounds
    )
    return Claim(f"a round of {kind} reaches training and is refused", bool(rounds) and holds and reached, numbers)


def _flood_left_out(loop: Loop) -> Claim:
    """Of the poison, that of the one source that sent a flood was never trained on."""
    [poison] = [each for each in loop.rounds if each.kind == "poison"]
    flooded = poison.trained.get(CRAWLER, 0)
    return Claim(
        "a flood from one source does not reach training",
        not flooded,
        f"{CRAWLER} sent {FLOOD} of {poison.sent} rows, of which {flooded} were trained on",
    )


def _restored(loop: Loop) -> Claim:
    """After each rollback files and answers are those from before."""
    files = all(before.files == after.files for before, after in loop.restored)
    answers = all(before.answers == after.answers for before, after in loop.restored)
    count = sum(len(after.files) for _, after in loop.restored)
    asked = sum(len(after.answers) for _, after in loop.restored)
    return Claim(
        "a rollback restores the exact bytes",
        bool(loop.restored) and files and answers,
        f"{count} files with the same SHA-256: {files}; {asked} greedy answers the same: {answers}",
    )


def _nothing_dropped(loop: Loop) -> Claim:
    """Each visitor was answered each time, by the champions in their order."""
    orders = loop.visitors.champions()
    followed = all(order == loop.served for order in orders)
    return Claim(
        "the server follows every change of champion and drops no request",
        followed and not loop.visitors.dropped,
        f"{loop.visitors.answered} requests answered, {len(loop.visitors.dropped)} dropped; {len(loop.served) - 1} "
        f"changes, each seen by {len(orders)} visitors after at most {max(loop.seconds):.0f} s",
    )
