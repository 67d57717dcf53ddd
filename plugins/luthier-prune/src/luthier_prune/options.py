"""What all pruners share: how far to go, on which examples; and what can be refused while planning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from luthier import InputError, Search, settings

FORMS = {"language-modelling", "prompt-completion", "chat"}
"""The forms of calibration data."""

BY_DIVERGENCE = Search("mean_kl", better="lower", split=None)
"""How pruned models compare where a recipe gives lists of values: of one size, the one that changed least is best."""


@settings
@dataclass(frozen=True, kw_only=True)
class Pruning:
    """How far to prune, and on which examples.

    Attributes:
        ratio: the share of the units that is removed: `0.25`.
        parameters: what the model may have at most afterwards: `110M`.
        max_kl: a budget of quality in place of a size: as much is removed as keeps the mean Kullback-Leibler
            divergence from the model as it was within so many nats a token, by bisection.
        calibration_examples: rows of the split `train` that importance is measured on, and of the split `valid` that
            the damage is measured on, drawn by the seed.
        max_length: tokens of an example at most.
        curve: how many smaller cuts on the way are measured too, for the curve of quality against size in the report;
            a budget's bisection is its own curve.
    """

    ratio: Annotated[float, Interval(gt=0, lt=1)] | None = None
    parameters: str | None = None
    max_kl: Annotated[float, Gt(0)] | None = None
    calibration_examples: Annotated[int, Ge(1)] = 64
    max_length: Annotated[int, Ge(8)] = 512
    curve: Annotated[int, Ge(0)] = 3

    @property
    def target(self) -> str | None:
        """The name of the target that is given; None without one."""
        return next(iter(targets_of(self.ratio, self.parameters, self.max_kl)), None)


def targets_of(ratio: float | None, parameters: str | None, max_kl: float | None) -> list[str]:
    """The targets that are given, by name."""
    given = {"ratio": ratio, "parameters": parameters, "max_kl": max_kl}
    return [name for name, value in given.items() if value is not None]


def check_target(
    *, ratio: float | None, parameters: str | None, max_kl: float | None, optional: bool = False, **_: object
) -> None:
    """Refuse no target, several, and a number of parameters that is none; takes a pruner's whole configuration.

    Raises:
        InputError: naming what was given.
    """
    from luthier_models.families.sizes import parse_count

    given = targets_of(ratio, parameters, max_kl)
    if len(given) > 1:
        raise InputError(f"several targets: {', '.join(given)}", "Keep one of them.")
    if not given and not optional:
        raise InputError(
            "nothing says how far to prune",
            "Give `ratio: 0.25` (a share), `parameters: 110M` (a size) or `max_kl: 0.1` (a budget of quality).",
        )
    if parameters is not None:
        parse_count(parameters)


def check_vocabulary(*, min_frequency: int | None, **others: object) -> None:
    """Refuse `min_frequency` beside a target, and what `check_target` refuses.

    Raises:
        InputError: naming what was given.
    """
    check_target(**others, optional=True)  # type: ignore[arg-type]
    given = targets_of(others["ratio"], others["parameters"], others["max_kl"])  # type: ignore[arg-type]
    if given and min_frequency is not None:
        raise InputError(f"`min_frequency` and `{given[0]}` both say which tokens go", "Keep one of them.")


def check_weights(*, pattern: str, **others: object) -> None:
    """Refuse a target beside a pattern that is one, and what `check_target` refuses.

    Raises:
        InputError: naming what was given.
    """
    if pattern == "unstructured":
        check_target(**others)  # type: ignore[arg-type]
        return
    given = targets_of(others["ratio"], others["parameters"], others["max_kl"])  # type: ignore[arg-type]
    if given:
        raise InputError(
            f"the pattern {pattern} sets half of the weights to zero, so it is a target, and `{given[0]}` is another",
            f"Leave out `{given[0]}`, or the pattern.",
        )
