"""Judges a step's gate on what its validator reported of each subject."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from luthier.artifacts import Artifact, Report
from luthier.core_stages import CHAMPION
from luthier.errors import InputError
from luthier.gates import judge
from luthier.plans import bounds
from luthier.runrecord import GateResult
from luthier.steps import StepSpec


def decide(
    step: StepSpec, reports: Mapping[str, Artifact], seed: int, without_champion: str = ""
) -> Iterator[GateResult]:
    """Hold each bound of a step's gate against what was measured.

    Args:
        reports: the report artifacts of the validator, by subject.
        seed: of the bootstrap.
        without_champion: why a bound that compares with the champion is skipped; empty where it is not.

    Raises:
        InputError: if a bound compares with a subject that was not measured, or names no metric of the report.
    """
    measured = {
        subject: Report.at(artifact.path / "0", "report", artifact.hash).metric_records()
        for subject, artifact in reports.items()
    }
    for bound in bounds(step):
        if bound.subject == CHAMPION and without_champion:
            value = judge(replace(bound, subject=None, other="", confidence=None), measured["candidate"], None).value
            yield GateResult.skip(step.id, bound, value, without_champion)
            continue
        if bound.subject is not None and bound.subject not in measured:
            raise InputError(
                f"{step.id}: its gate compares with {bound.subject}, of which there is none here",
                "Compare with base, or export before it.",
            )
        other = measured[bound.subject] if bound.subject else None
        yield GateResult.of(step.id, judge(bound, measured["candidate"], other, seed=seed))
