"""One test for each check and component of a plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.discovery import installed_candidates
from luthier.distributions import normalized, requirement_name
from luthier.errors import InputError
from luthier.plugins import Registry, load_plugins
from luthier.suggest import did_you_mean

if TYPE_CHECKING:
    import pytest

    from luthier.components import Component
    from luthier.testing.checks import ComponentCheck
    from luthier.testing.workshop import Workshop

Samples = Mapping[str, Any]
Configurations = Mapping[str, Mapping[str, Any]]

SAMPLES_FIXTURE = "luthier_samples"
CONFIGURATIONS_FIXTURE = "luthier_configurations"


def conformance(
    plugin: str | Path,
    *,
    samples: Samples | None = None,
    configurations: Configurations | None = None,
    own_environment: bool = False,
    slow: Collection[str] = (),
) -> Callable[..., None]:
    """Make the tests that a plugin must pass, one for each check and component.

    Assign what this gives to a name that pytest collects: `test_conformance = conformance("text")`. The
    fixtures `luthier_samples` and `luthier_configurations`, where the test's module or conftest has them,
    add to what is passed here. A check that lacks a sample is skipped, and says which.

    Args:
        plugin: the name of its entry point; or the path of a one-file plugin, from the test's directory.
        samples: inputs that the kit cannot make, by name: `{"model": "path/of/model"}`, or an artifact such
            as `luthier.Model.at(path, "causal-lm")`. `data` and `frame` replace the kit's own rows.
        configurations: what to configure a component with, by its name: `{"length": {"min_words": 3}}`.
        own_environment: also build an environment with nothing but the distribution's requirements, and run
            each component there. Slow: those tests have the mark `slow`.
        slow: tests that get the mark `slow` too, by what pytest shows in brackets: `{"tune:long/killed"}`.

    Raises:
        InputError: if pytest is not installed.
    """
    try:
        import pytest
    except ImportError as error:
        raise InputError("luthier.testing.conformance needs pytest", "pip install pytest") from error
    plugin = _located(plugin, Path(sys._getframe(1).f_globals.get("__file__", "")).parent)
    registry = _load(plugin)
    shops: dict[str, Workshop] = {}
    cases = dict(_cases(registry, plugin, own_environment=own_environment))
    marked = {name for name in cases if name in slow or name.endswith("/own-environment")}
    if registry.components:
        for name in sorted(set(slow) - set(cases)):
            hint = did_you_mean(name, list(cases)) or "which is not there."
            cases[name] = partial(_refuse, f"slow names the test {name!r}, {hint}")
    parameters = [pytest.param(name, marks=pytest.mark.slow if name in marked else (), id=name) for name in cases]

    @pytest.mark.parametrize("check", parameters)
    def test_conformance(check: str, request: pytest.FixtureRequest) -> None:
        from luthier.testing.verdicts import BrokenRuleError, CannotRunError

        shop = shops.get("")
        if shop is None:
            installed = registry.plugins[0].distribution if registry.plugins and isinstance(plugin, str) else ""
            shop = _open_workshop(
                plugin,
                installed,
                request,
                samples=samples or {},
                configurations=configurations or {},
                forget=shops.clear,
            )
            shops[""] = shop
        skipped = broken = ""
        try:
            cases[check](shop)
        except CannotRunError as reason:
            skipped = str(reason)
        except BrokenRuleError as rule:
            broken = str(rule)
        # Out here pytest shows our message alone.
        if skipped:
            pytest.skip(skipped)
        if broken:
            pytest.fail(broken, pytrace=False)

    test_conformance.__doc__ = f"The plugin {plugin} keeps the rules."
    return test_conformance


def _located(plugin: str | Path, beside: Path) -> str | Path:
    if isinstance(plugin, Path) or plugin.endswith(".py"):
        return (beside / plugin).resolve()
    return plugin


@cache
def _load(plugin: str | Path) -> Registry:
    if isinstance(plugin, Path):
        return load_plugins(local=[plugin], environ={"LUTHIER_PLUGINS": plugin.stem})
    companions = companions_of(plugin)
    registry = load_plugins(environ={"LUTHIER_PLUGINS": ",".join([plugin, *companions])})
    return replace(
        registry,
        components=tuple(each for each in registry.components if each.distribution not in companions),
        plugins=tuple(each for each in registry.plugins if each.distribution not in companions),
        broken=tuple(each for each in registry.broken if each.distribution not in companions),
    )


def companions_of(plugin: str | Path) -> list[str]:
    """The distributions of plugins that a plugin's distribution requires: one may add the stage that it is for."""
    if isinstance(plugin, Path):
        return []
    candidates = installed_candidates()
    own = {each.distribution for each in candidates if each.name == plugin and not each.problem}
    required = {normalized(requirement_name(line)) for name in own for line in requires(name) or ()}
    return sorted({each.distribution for each in candidates if normalized(each.distribution) in required} - own)


def _cases(
    registry: Registry, plugin: str | Path, *, own_environment: bool
) -> Iterator[tuple[str, Callable[[Workshop], None]]]:
    from luthier.testing.checks import COMPONENT_CHECKS, ENVIRONMENT_CHECK, PLUGIN_CHECKS

    absent = _absence(plugin)
    if absent:
        yield "hooks", partial(_refuse, absent)
        return
    for check in PLUGIN_CHECKS:
        # A one-file plugin declares no libraries.
        if check.name != "declared-libraries" or isinstance(plugin, str):
            yield check.name, lambda shop, run=check.run: run(shop, registry)  # type: ignore[misc]
    chosen = (*COMPONENT_CHECKS, *([ENVIRONMENT_CHECK] if own_environment else []))
    for component in registry.components:
        for each in chosen:
            if each.applies(component):
                yield f"{component}/{each.name}", _bound(each, component)


def _absence(plugin: str | Path) -> str:
    """Why there is no such plugin at all; empty if there is one."""
    if isinstance(plugin, Path):
        hint = did_you_mean(plugin.name, sorted(path.name for path in plugin.parent.glob("*.py")))
        told = f"there is no plugin file {plugin}: its path starts at the test's folder"
        return "" if plugin.is_file() else f"{told}; {hint}".removesuffix("; ")
    candidates = installed_candidates()
    if any(plugin in (each.name, each.distribution) for each in candidates):
        return ""
    names = sorted({each.name for each in candidates})
    hint = did_you_mean(plugin, names) or "Install it first: pip install --editable ."
    return f"no plugin is called {plugin!r}; {hint} Installed: {', '.join(names) or 'none'}."


def _refuse(why: str, shop: Workshop) -> None:
    from luthier.testing.verdicts import BrokenRuleError

    raise BrokenRuleError(why)


def _bound(check: ComponentCheck, component: Component) -> Callable[[Workshop], None]:
    def run(shop: Workshop) -> None:
        with shop.checking(component, check.name):
            check.run(shop, component)

    return run


def _open_workshop(
    plugin: str | Path,
    distribution: str,
    request: pytest.FixtureRequest,
    *,
    samples: Samples,
    configurations: Configurations,
    forget: Callable[[], None],
) -> Workshop:
    """A workshop for the tests of one module, closed after the last of them."""
    import pytest

    from luthier.testing.workshop import Workshop

    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    shop = Workshop(
        plugin,
        factory.mktemp("conformance"),
        {**_fixture(request, SAMPLES_FIXTURE), **samples},
        {**_fixture(request, CONFIGURATIONS_FIXTURE), **configurations},
        distribution,
        companions=companions_of(plugin),
    )

    def close() -> None:
        shop.close()
        forget()

    module = request.node.getparent(pytest.Module)
    assert module is not None
    module.addfinalizer(close)
    return shop


def _fixture(request: pytest.FixtureRequest, name: str) -> Mapping[str, Any]:
    import pytest

    try:
        value: Mapping[str, Any] = request.getfixturevalue(name)
    except pytest.FixtureLookupError as error:
        if error.argname != name:
            raise
        return {}
    return value
