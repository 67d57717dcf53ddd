"""What a component says of its results that lets a step of it be searched: by what they compare, at which budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from luthier.components import Component


@dataclass(frozen=True)
class Search:
    """How results of a component compare, so that a recipe may give it lists of values to choose the best of.

    Attributes:
        metric: what the component reports of each result with `ctx.metric`, measured on examples that it did
            not learn from.
        better: which values of the metric win.
        budgets: the optional parameters that say how much work is done, each with its unit:
            `{"max_steps": "steps"}`. Where a recipe gives one, many candidates are first compared at parts of it.
        split: the split of `data` that the metric is measured on. That it has rows is seen to before the first
            candidate begins; None where the metric needs no split.
        check: called with the configuration of each candidate while planning; it raises `InputError` where the
            metric would not be reported.
    """

    metric: str
    better: Literal["lower", "higher"] = "lower"
    budgets: Mapping[str, str] = field(default_factory=dict)
    split: str | None = "valid"
    check: Callable[..., None] | None = None


def search_problem(component: Component) -> str:
    """What is wrong with how a component's results are said to compare; empty if nothing is."""
    search = component.declared.search
    if search is None:
        return ""
    if component.stage.gives in (None, "report") or "frame" in component.inputs:
        return "only what makes a model, or a dataset as a whole, can be searched"
    if "ctx" not in component.inputs:
        return f"asks for no `ctx` to report {search.metric!r} with"
    if search.better not in ("lower", "higher"):
        return f"`better` is {search.better!r}; it is 'lower' or 'higher'"
    optional = [each.name for each in component.parameters if each.default is None]
    strange = [name for name in search.budgets if name not in optional]
    return f"its budgets {strange} are no parameters with the default None" if strange else ""
