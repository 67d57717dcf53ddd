"""The routes from a model to one that ships: what the installed plugins give, found by stages, forms and settings.

No component is named here. An exporter is a route of its own; so is each quantizer that takes what the model is,
before an exporter, and each that takes what an exporter gives, after it. One that rounds nothing itself and says so by
a trait, `prepares`, comes before each of the latter. Components of one of these stages that a plugin adds are taken up
without a change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luthier import Component, InputError, LuthierError, Registry
from luthier_optimize.material import Material
from luthier_optimize.steps import Step

BUDGET_OF_LOSS = "max_kl"
BUDGETS_OF_SIZE = ("max_megabytes",)
"""Settings that luthier-quantize and luthier-prune have for a budget; a component of another plugin may have them."""
PREPARES = "prepares"
"""The trait of a quantizer whose model is as large as before, and loses less by those that come after it."""


@dataclass(frozen=True)
class Limits:
    """What a chosen model must keep to.

    Attributes:
        max_kl: the mean Kullback-Leibler divergence from the model in float32, in nats a token; None without.
        max_bytes: of all its files; None without.
    """

    max_kl: float | None = None
    max_bytes: float | None = None


@dataclass(frozen=True)
class Stop:
    """One component on a route, with what its step sets beside its defaults."""

    component: Component
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For people: `int4 method=rtn`."""
        return " ".join([self.component.name, *(f"{name}={value}" for name, value in self.settings.items())])


@dataclass(frozen=True)
class Route:
    """Components one after the other, from the model to an exported one.

    Attributes:
        stops: the components in order.
        form: of what the last one gives.
        reason: why it cannot be gone; empty where it can.
        others: the same with other settings of the exporter, for where what follows does not take its defaults.
    """

    stops: tuple[Stop, ...]
    form: str
    reason: str = ""
    others: tuple[Route, ...] = ()

    @property
    def label(self) -> str:
        """For people: `gptq > genai`."""
        return " > ".join(stop.label for stop in self.stops)

    @property
    def before_export(self) -> tuple[str, ...]:
        """What happens to the model before it is exported, and by what it is: routes that share it end alike."""
        return tuple(stop.component.name for stop in self.stops if stop.component.kind == "model")

    @property
    def is_prepared(self) -> bool:
        """Whether it begins with what only prepares the model for what comes after."""
        return _prepares(self.stops[0])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its components."""
        return tuple(stop.component.name for stop in self.stops)

    @property
    def rest(self) -> str:
        """The route without its first stop, for people."""
        return " > ".join(stop.label for stop in self.stops[1:])

    @property
    def exporter(self) -> Stop:
        """The stop that exports."""
        return next(stop for stop in self.stops if stop.component.stage.name == "export")

    def steps(self, material: Material) -> list[Step]:
        """The route as the steps of a recipe, to follow those of the material."""
        found: list[Step] = []
        for stop in self.stops:
            step: Step = {stop.component.stage.name: stop.component.name, **stop.settings}
            if "data" in stop.component.inputs:
                step = material.reading(step)
            if any(stop.component.name in each.values() for each in material.steps):
                step = {**step, "id": f"{stop.component.name}-optimized"}
            found.append(step)
        return found


def find_routes(registry: Registry, material: Material, limits: Limits) -> list[Route]:
    """The routes without pruning: exported, and quantized before or after.

    One setting is changed at a time: where an exporter has other choices, each is a route of its own, and quantizers
    are tried with its defaults; with its other choices only where they do not take those. What prepares a model comes
    before the quantizers as they are without settings.

    Raises:
        InputError: if no installed exporter takes such a model.
    """
    found = [
        route
        for component in registry.of_stage("export")
        if component.accepts("model", material.form)
        for route in _through(component, registry, material, limits)
    ]
    if not found:
        exporters = {form for each in registry.of_stage("export") for form in each.declared.needs.get("model", ())}
        raise InputError(
            f"no installed exporter takes a model of the form {material.form}",
            f"The installed ones take: {', '.join(sorted(exporters)) or 'none'}. See: luthier plugins list",
        )
    return found


def pruned_routes(registry: Registry, material: Material, limits: Limits, best: Route) -> list[Route]:
    """The best route, with each pruner before it."""
    return [
        _judged(Route((stop, *best.stops), best.form), material)
        for stop in _stops(registry, "prune", "model", material.form, limits)
    ]


def _through(exporter: Component, registry: Registry, material: Material, limits: Limits) -> Iterator[Route]:
    """The routes through an exporter: alone, and with each quantizer before or after it."""
    stops = [Stop(exporter, settings) for settings in _settings(exporter, limits)]
    forms = [exporter.form(stop.settings, [material.form]) or exporter.name for stop in stops]
    for stop, form in zip(stops, forms, strict=True):
        reason = _unloadable(registry, form)
        yield _judged(Route((stop,), form, reason), material)
        if reason:
            # What no runtime loads cannot be measured, whatever its settings; nor what is made of it, most likely.
            afters = _stops(registry, "quantize", "onnx", form, limits)
            yield from (Route((stop, after), form, reason) for after in afters if not after.settings)
            return
    if not stops:
        return
    export, form = stops[0], forms[0]
    befores = list(_stops(registry, "quantize", "model", material.form, limits))
    for before in befores:
        if not _prepares(before):
            yield _judged(Route((before, export), form), material)
    preparations = [stop for stop in befores if _prepares(stop) and not stop.settings]
    for after in _stops(registry, "quantize", "onnx", form, limits):
        given = after.component.form(after.settings, [form]) or form
        others = [other for other, same in zip(stops[1:], forms[1:], strict=True) if same == form]
        route = Route(
            (export, after),
            given,
            _unloadable(registry, given),
            tuple(_judged(Route((other, after), given), material) for other in others),
        )
        yield _judged(route, material)
        if not after.settings:
            yield from (_judged(_after(stop, route), material) for stop in preparations)


def _after(preparation: Stop, route: Route) -> Route:
    """A route, and what it becomes with other settings of its exporter, with a preparation before it."""
    others = tuple(_after(preparation, other) for other in route.others)
    return replace(route, stops=(preparation, *route.stops), others=others)


def _prepares(stop: Stop) -> bool:
    return bool(stop.component.traits(stop.settings).get(PREPARES))


def _stops(registry: Registry, stage: str, kind: str, form: str, limits: Limits) -> Iterator[Stop]:
    """The components of a stage that take this kind and form, with each choice of settings."""
    for component in registry.of_stage(stage):
        if kind in component.inputs and component.accepts(kind, form):
            yield from (Stop(component, settings) for settings in _settings(component, limits))


def _unloadable(registry: Registry, form: str) -> str:
    """Why no runtime loads a model of this form here; empty where one does."""
    try:
        registry.default_runtime("onnx", form).require_extra()
    except InputError as error:
        return f"{error.message}: {error.remedy}" if error.remedy else error.message
    return ""


def _settings(component: Component, limits: Limits) -> Iterator[dict[str, Any]]:
    """The settings that are tried: the defaults, and then each other choice that a setting names, one at a time.

    A component that cannot go without a budget gets those of the limits. Numbers are left as their authors set them.
    """
    names = {parameter.name for parameter in component.parameters}
    budgets = [{BUDGET_OF_LOSS: limits.max_kl}] if limits.max_kl and BUDGET_OF_LOSS in names else []
    if limits.max_bytes:
        budgets += [{name: limits.max_bytes / 1e6} for name in BUDGETS_OF_SIZE if name in names]
    if not _is_accepted(component, {}):
        yield from (budget for budget in budgets if _is_accepted(component, budget))
        return
    yield {}
    properties = component.model.model_json_schema().get("properties", {})
    for parameter in component.parameters:
        for choice in properties.get(parameter.name, {}).get("enum", ()):
            if (
                isinstance(choice, str)
                and choice != parameter.default
                and _is_accepted(component, {parameter.name: choice})
            ):
                yield {parameter.name: choice}


def _is_accepted(component: Component, settings: Mapping[str, Any]) -> bool:
    try:
        component.configure(settings)
    except LuthierError:
        return False
    return True


def _judged(route: Route, material: Material) -> Route:
    """The route, with the reason why it cannot be gone where the plan would say so."""
    for stop in route.stops:
        if "data" in stop.component.inputs and not stop.component.accepts("data", material.texts.form):
            forms = " or ".join(sorted(stop.component.declared.needs["data"]))
            return replace(route, reason=f"{stop.component.name} takes examples of the form {forms}", others=())
    return route


def chosen_only(routes: Sequence[Route], only: Sequence[str], skip: Sequence[str]) -> list[Route]:
    """The routes through one of the components `only` (all of them where it is empty), through none of `skip`.

    A plain export stays where routes through it do: the others are compared with it.
    """
    left = [route for route in routes if not {*route.names} & {*skip}]
    through = [route for route in left if not only or {*route.names} & {*only}]
    exporters = {route.exporter.label for route in through}
    return [route for route in left if route in through or route.label in exporters]


def check_names(registry: Registry, names: Sequence[str]) -> None:
    """Refuse names of no exporter, quantizer or pruner.

    Raises:
        InputError: with the closest match.
    """
    from luthier.suggest import did_you_mean

    known = [each.name for stage in ("export", "quantize", "prune") for each in registry.of_stage(stage)]
    for name in names:
        if name not in known:
            raise InputError(
                f"no exporter, quantizer or pruner is called {name!r}",
                did_you_mean(name, known) or f"Installed: {', '.join(known)}.",
            )
