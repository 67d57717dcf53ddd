"""What a reader of the model card must know: only what follows from what was measured, or was not."""

from __future__ import annotations

from luthier import Run
from luthier_report._comparison import SUBJECT_TITLES, Comparison
from luthier_report._funnel import DataStep
from luthier_report._lineage import configuration_of
from luthier_report._values import displayable, metric_title, number, signed

FEW_EXAMPLES = 100


def limitations(run: Run, compared: list[Comparison], data: list[DataStep]) -> list[str]:
    """One sentence or two each."""
    found = [*_unmeasured(run, compared, data), *_worse(compared), *_uncertain(compared), *_budget(run)]
    sources = ", ".join(displayable(step.component) for step in data if step.stage == "source")
    if compared and sources:
        found.append(
            f"Quality was measured on held-out data of the same source ({sources}) alone. Other text was not tried."
        )
    return found


def _unmeasured(run: Run, compared: list[Comparison], data: list[DataStep]) -> list[str]:
    found = []
    if not any(one.rows for one in compared):
        found.append("Nothing was measured: the recipe validates nothing.")
    elif not run.gates:
        found.append("The recipe sets no gate: the numbers were measured, and nothing was asked of them.")
    if not any(step.stage == "bias" for step in data):
        found.append("The training data was neither filtered nor audited for bias.")
    else:
        found.append("The bias steps looked at the training data. What the model writes was not examined for bias.")
    return found


def _worse(compared: list[Comparison]) -> list[str]:
    return [
        f"{metric_title(row.name)} is worse than that of the {_whose(subject)} "
        f"({number(row.values['candidate'])} against {number(row.values[subject])}, {signed(difference.value)})."
        for one in compared
        for row in one.rows
        for subject, difference in row.differences.items()
        if difference.verdict == "worse"
    ]


def _whose(subject: str) -> str:
    return "model before export" if subject == "reference" else SUBJECT_TITLES.get(subject, displayable(subject))


def _uncertain(compared: list[Comparison]) -> list[str]:
    found = []
    for one in compared:
        if one.split == "train":
            found.append(f"{displayable(one.step)} was measured on the data that the model was tuned on.")
        few = sorted({row.examples for row in one.rows if 0 < row.examples < FEW_EXAMPLES})
        if few:
            found.append(f"{displayable(one.step)} was measured on {' and '.join(map(str, few))} examples only.")
        found += [
            f"The difference in {metric_title(row.name)} from the base model may be chance."
            for row in one.rows
            if "base" in row.differences and row.differences["base"].may_be_chance
        ]
    return found


def _budget(run: Run) -> list[str]:
    timed = [step for step in run.steps if step.stage == "tune" and configuration_of(step).get("max_minutes")]
    return [
        f"The step {displayable(step.id)} had a budget of {configuration_of(step)['max_minutes']} minutes: "
        "on another machine the same recipe may do more or fewer steps."
        for step in timed
    ]
