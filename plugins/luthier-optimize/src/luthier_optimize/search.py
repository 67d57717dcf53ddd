"""The search: the model as it is, every route, times, the choice, and then pruning before the chosen route."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import luthier
from luthier import Dataset, InputError, Registry
from luthier.errors import GateRefused
from luthier_optimize.choosing import choose, misses, nearest, pareto
from luthier_optimize.local import home_of, local_plugins, plugins_for
from luthier_optimize.material import Material, find_material
from luthier_optimize.outcome import FILE as OUTCOME_FILE
from luthier_optimize.outcome import Outcome, Tried, known_failures, make_directory, save
from luthier_optimize.routes import Limits, Route, check_names, chosen_only, find_routes, pruned_routes
from luthier_optimize.steps import recipe_text
from luthier_optimize.timing import Trial, context_of, libraries_of, machine, prompts_of, take_times
from luthier_optimize.trying import Workshop, recipe_name, try_baseline, try_route
from luthier_report.pages import write

RECIPE_FILE = "recipe.yaml"
HEADING = "The best model for"
"""What the comment above a chosen recipe begins with: by it an earlier one is told from a recipe of the user's."""
NO_SMALLER = 0.98
"""Of a model's size without what was done before its export: from there on, that is not in it."""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; see `luthier optimize --help`."""

    model: str
    goal: str
    limits: Limits
    data: str | None
    output: Path
    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    examples: int = 40
    rounds: int = 3
    new_tokens: int = 64
    threads: int | None = None
    device: str = "auto"
    plugins: Sequence[Path] = ()
    home: Path | None = None
    retry: bool = False


@dataclass
class Search:
    """A search under way.

    Attributes:
        wanted: what was asked for.
        tell: is told what is being done now.
        report: is told what became of each route, with its number and how many there are.
    """

    wanted: Wanted
    tell: Callable[[str], None]
    report: Callable[[Tried, int, int], None]
    _sizes: dict[str, int] = field(default_factory=dict)
    _gone: dict[str, Route] = field(default_factory=dict)
    _failed: dict[tuple[str, ...], str] = field(default_factory=dict)
    _pointless: dict[tuple[tuple[str, ...], str], str] = field(default_factory=dict)

    def run(self) -> Outcome:
        """Try everything, choose, and write the chosen recipe.

        Raises:
            InputError: if there is no such model, too little text, or nothing to try.
            LuthierError: if the model cannot be measured as it is.
        """
        wanted = self.wanted
        _check_own(wanted.output / RECIPE_FILE)
        registry = luthier.load_plugins(local=local_plugins(wanted.plugins))
        check_names(registry, [*wanted.only, *wanted.skip])
        material = find_material(
            wanted.model, wanted.data, home=wanted.home, output=wanted.output, plugins=wanted.plugins
        )
        routes = chosen_only(find_routes(registry, material, wanted.limits), wanted.only, wanted.skip)
        if not routes:
            raise InputError("nothing is left to try", "Name fewer components with --skip, or others with --only.")
        make_directory(wanted.output)
        failures = {} if wanted.retry else known_failures(wanted.output)
        workshop = Workshop(
            material,
            home_of(wanted.home),
            wanted.plugins,
            wanted.device,
            wanted.examples,
            failures,
            self.tell,
        )
        baseline, texts = try_baseline(workshop)
        limits = {"max_kl": wanted.limits.max_kl, "max_size": wanted.limits.max_bytes}
        outcome = Outcome(
            wanted.model,
            wanted.data or material.texts.id,
            wanted.goal,
            {name: value for name, value in limits.items() if value is not None},
            baseline,
            failures=failures,
        )
        self.report(outcome.baseline, 0, len(routes))
        self._try(routes, outcome, workshop)
        self._try(self._pruned(registry, outcome, material), outcome, workshop)
        self._take_times(registry, outcome, texts)
        self._conclude(outcome, workshop)
        return outcome

    def _try(self, routes: Sequence[Route], outcome: Outcome, workshop: Workshop) -> None:
        # Plain exports first: what the others are compared with.
        done = len(outcome.tried)
        for number, route in enumerate(sorted(routes, key=lambda each: len(each.stops) > 1), done + 1):
            tried = self._left_out(route) or self._go(route, workshop)
            self._compare(self._gone.get(tried.label, route), tried)
            outcome.tried.append(tried)
            save(outcome, self.wanted.output)
            self.report(tried, number, done + len(routes))

    def _go(self, route: Route, workshop: Workshop) -> Tried:
        """Go a route; where it fails, with other settings of its exporter. Where all fail, the first reason counts."""
        found = []
        for each in (route, *route.others):
            found.append(try_route(each, workshop))
            if not found[-1].error:
                self._gone[each.label] = each
                return found[-1]
        return found[0]

    def _left_out(self, route: Route) -> Tried | None:
        """A route through components that failed with their defaults, or whose beginning changes nothing at its end."""
        failed = self._failed.get(route.names) or (self._failed.get(route.names[1:]) if route.is_prepared else None)
        reason = f"{failed} failed" if failed else self._pointless.get((route.before_export, route.rest))
        return Tried(route.label, form=route.form, error=reason, left_out=True) if reason else None

    def _compare(self, route: Route, tried: Tried) -> None:
        """Leave out a model that is as large as without what was done before its export."""
        if tried.error:
            if not tried.left_out:
                self._failed.setdefault(route.names, route.label)
            return
        self._sizes[route.label] = tried.bytes
        # What prepares a model for others makes it better, not smaller.
        if (
            route.before_export
            and not route.is_prepared
            and tried.bytes >= NO_SMALLER * self._sizes.get(route.rest, tried.bytes + 1)
        ):
            told = f"as large as {route.rest} without {route.before_export[0]}"
            self._pointless[route.before_export, route.rest] = told
            tried.error, tried.left_out = told, True

    def _pruned(self, registry: Registry, outcome: Outcome, material: Material) -> list[Route]:
        """The pruners before the smallest model within the limits, each with what that leaves of the loss."""
        limits = self.wanted.limits
        best = choose(outcome.measured, limits, "size")
        if best is None:
            return []
        left = None if limits.max_kl is None else float(f"{limits.max_kl - (best.mean_kl or 0.0):.3g}")
        found = pruned_routes(registry, material, Limits(left, limits.max_bytes), self._gone[best.label])
        return chosen_only(found, self.wanted.only, self.wanted.skip)

    def _take_times(self, registry: Registry, outcome: Outcome, texts: Dataset) -> None:
        wanted = self.wanted
        if not outcome.measured:
            return
        prompts, long_prompt = prompts_of(texts, context_of(Path(outcome.baseline.path)))
        threads = wanted.threads or available_cores()
        local = [str(path) for path in local_plugins(wanted.plugins)]
        models = [("model", outcome.baseline.form), *(("onnx", each.form) for each in outcome.measured)]
        trial = Trial(
            prompts,
            long_prompt,
            wanted.new_tokens,
            wanted.rounds,
            threads,
            wanted.device,
            local,
            libraries_of(registry, models),
        )
        outcome.machine = machine()
        outcome.timing = {"rounds": wanted.rounds, "new_tokens": wanted.new_tokens, "threads": threads}
        take_times(outcome.baseline, outcome.measured, trial, wanted.output, self.tell)

    def _conclude(self, outcome: Outcome, workshop: Workshop) -> None:
        wanted = self.wanted
        outcome.front = [each.label for each in pareto(outcome.measured, wanted.goal)]
        best = choose(outcome.measured, wanted.limits, wanted.goal)
        if best:
            outcome.chosen = best.label
            self.tell("the chosen recipe")
            self._write_recipe(best, outcome, workshop)
        else:
            (wanted.output / RECIPE_FILE).unlink(missing_ok=True)  # An earlier choice is none any more.
            near = nearest(outcome.measured, wanted.limits)
            outcome.missed = f"{near.label}: {missing(near, wanted.limits)}" if near else ""
        save(outcome, wanted.output)

    def _write_recipe(self, best: Tried, outcome: Outcome, workshop: Workshop) -> None:
        """Write the chosen recipe, and run it as it stands; the gates of the user's recipe may still refuse it."""
        wanted, material = self.wanted, workshop.material
        measures = workshop.measures(compared=True, gated=True)
        if wanted.limits.max_kl is not None:
            measures[0] = {**measures[0], "gate": {"mean_kl": {"at_most": wanted.limits.max_kl}}}
        text = recipe_text(
            recipe_name(material),
            material.seed,
            [*material.steps, *best.steps, *measures],
            f"{HEADING} {wanted.goal} that `luthier optimize` found: {best.label}.\n"
            f"Its measures and those of the others are in {OUTCOME_FILE}, beside this file.",
        )
        path = wanted.output / RECIPE_FILE
        write(path, text)
        plugins = plugins_for(path, wanted.plugins)
        try:
            luthier.run(path, home=workshop.home, plugins=plugins, device=wanted.device, display=False)
        except GateRefused as error:
            outcome.refused = error.message


def _check_own(recipe: Path) -> None:
    """Refuse to replace a recipe that is not of an earlier search.

    Raises:
        InputError: if there is one.
    """
    if recipe.exists() and not recipe.read_bytes().startswith(f"# {HEADING}".encode()):
        raise InputError(f"{recipe} is not of an earlier search, and would be replaced", "Name another --output DIR.")


def missing(tried: Tried, limits: Limits) -> str:
    """By how much a model misses the limits, for people."""
    told = []
    missed = misses(tried, limits)
    if "max_kl" in missed and limits.max_kl is not None and tried.mean_kl is not None:
        told.append(f"mean KL {tried.mean_kl:.4g}, {tried.mean_kl - limits.max_kl:.3g} above {limits.max_kl:g}")
    if "max_size" in missed and limits.max_bytes is not None:
        over = tried.bytes - limits.max_bytes
        told.append(f"{tried.bytes / 1e6:.4g} MB, {over / 1e6:.3g} MB above {limits.max_bytes / 1e6:g} MB")
    return "; ".join(told)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
