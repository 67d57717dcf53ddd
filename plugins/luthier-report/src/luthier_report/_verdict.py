"""The verdict: is the model better than what there was, and did every gate pass."""

from __future__ import annotations

from dataclasses import dataclass

from luthier import Run
from luthier_report._comparison import CONFIDENCE, Comparison, Difference, MetricRow
from luthier_report._values import displayable, metric_title, number, signed

MARKS = {"passed": "✓", "refused": "✗", "skipped": "-"}
STATE_TITLES = {
    "done": "Done",
    "refused": "Refused by a gate",
    "failed": "Failed",
    "interrupted": "Interrupted",
    "running": "Still running",
}


@dataclass(frozen=True)
class Tile:
    """A number worth seeing first."""

    title: str
    value: str
    beside: str
    note: str
    verdict: str


@dataclass(frozen=True)
class Headline:
    """The run in a sentence, and its few most telling numbers."""

    title: str
    sentence: str
    tiles: list[Tile]


def headline(run: Run, compared: list[Comparison]) -> Headline:
    """The sentence and the numbers that head the report."""
    chosen = _telling(run, compared)
    sentence = _outcome(run)
    if chosen and "base" in chosen.differences:
        sentence = f"{_against_base(chosen, chosen.differences['base'])} {sentence}"
    return Headline(STATE_TITLES[run.state], sentence.strip(), _tiles(run, compared))


def _telling(run: Run, compared: list[Comparison]) -> MetricRow | None:
    """The metric that a gate watches and the base was measured on; else the first with a base."""
    gated = {(gate.step, gate.metric) for gate in run.gates}
    rows = [(one.step, row) for one in compared for row in one.rows if "base" in row.differences]
    watched = [row for step, row in rows if (step, row.name) in gated]
    return next(iter(watched or [row for _, row in rows]), None)


def _against_base(row: MetricRow, difference: Difference) -> str:
    beats = {
        "better": "is better than the base model",
        "worse": "is worse than the base model",
        "same": "is not distinguishable from the base model",
        "": "differs from the base model",
    }[difference.verdict]
    values = f"{number(row.values['candidate'])} against {number(row.values['base'])}"
    return f"This model {beats}: {metric_title(row.name)} {values} ({_spread(difference)})."


def _spread(difference: Difference) -> str:
    text = signed(difference.value)
    if difference.interval is None:
        return text
    low, high = (signed(bound) for bound in difference.interval)
    return f"{text}, {CONFIDENCE:.0%} interval {low} to {high}, {difference.examples} examples"


def _outcome(run: Run) -> str:
    refused = sum(not gate.passed for gate in run.gates)
    skipped = sum(gate.skipped for gate in run.gates)
    passed = len(run.gates) - refused - skipped
    if run.state == "failed":
        step = next((step.id for step in run.steps if step.state == "failed"), "")
        return f"The run failed at the step {displayable(step)}." if step else "The run failed."
    if run.state in ("interrupted", "running"):
        done = sum(step.state == "done" for step in run.steps)
        return f"The run was not finished: {done} of {len(run.steps)} steps are done."
    if run.data.evaluates:
        return _evaluated(run, refused, passed)
    if refused:
        return f"{refused} of {len(run.gates)} gates refused it: nothing may ship."
    if run.gates:
        told = "Its gate passed." if passed == 1 else f"All {passed} gates passed." if passed else ""
        return f"{told} {_skipped(skipped)}".strip()
    return "No gate was set." if any(step.stage == "validate" for step in run.steps) else "Nothing was validated."


def _evaluated(run: Run, worse: int, held: int) -> str:
    """What measuring a champion again came to."""
    champion = f"The champion of {displayable(run.data.recipe)}, measured again"
    if worse:
        return f"{champion}, is worse in {worse} of {worse + held} metrics than when it was promoted."
    return f"{champion}, is not surely worse in any of {held} metrics than when it was promoted."


def _skipped(number: int) -> str:
    """What could not be judged, since there was no other champion to compare with."""
    if not number:
        return ""
    gates = "A gate on the champion was" if number == 1 else f"{number} gates on the champion were"
    return f"{gates} skipped: there is no other to compare with."


def _tiles(run: Run, compared: list[Comparison]) -> list[Tile]:
    gated = [(gate.step, gate.metric) for gate in run.gates]
    rows = {(one.step, row.name): row for one in compared for row in one.rows}
    models = [name for name, row in rows.items() if not row.is_baseline]
    names = list(dict.fromkeys([name for name in gated if name in rows] or models))[:4]
    return [_tile(run, step, rows[step, metric]) for step, metric in names]


def _tile(run: Run, step: str, row: MetricRow) -> Tile:
    decisions = [gate for gate in run.gates if (gate.step, gate.metric) == (step, row.name)]
    judged = [gate for gate in decisions if not gate.skipped]
    verdict = "" if not judged else "passed" if all(gate.passed for gate in judged) else "refused"
    beside = f"base {number(row.values['base'])}" if "base" in row.values else ""
    note = "; ".join(gate.bound for gate in judged)
    return Tile(metric_title(row.name), number(row.values["candidate"]), beside, displayable(note), verdict)
