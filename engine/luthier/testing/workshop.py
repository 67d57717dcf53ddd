"""Where a plugin's components are run for their checks: on which samples, and what came of each run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.artifacts import Artifact, build_manifest
from luthier.components import Component, ConfigurationError
from luthier.errors import InputError, LuthierError, PluginError
from luthier.pool import StepError
from luthier.testing import samples
from luthier.testing.steps import step_requests
from luthier.testing.verdicts import BrokenRuleError, CannotRunError, explain
from luthier.testing.workers import Role, Workers

if TYPE_CHECKING:
    import polars as pl

TELLING = ("schema", "worker")
"""The checks that fail first where nothing of a component works."""


@dataclass(frozen=True)
class Outcome:
    """What came of running a component once.

    Attributes:
        place: the directory with `output`, `notes` and `checkpoint`.
        error: why it ended; None if it did what it was to do.
        heard: what the guard heard meanwhile; empty without one.
    """

    place: Path
    error: LuthierError | None
    heard: list[dict[str, str]] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether the component said that its input cannot be used, which is its right."""
        # The worker tells of exhausted memory with the same exit code.
        exhausted = self.error is not None and self.error.message.startswith("out of memory")
        return isinstance(self.error, StepError) and self.error.exit_code == InputError.exit_code and not exhausted

    def result(self, *, notes: bool) -> dict[str, str]:
        """The hash of each file that was given: of the output and, for what measures, of the notes."""
        found = {}
        for name in ("output", *(("notes/0/tables", "notes/0/figures") if notes else ())):
            for entry in build_manifest(self.place / name, "report", "").files:
                found[f"{name}/{entry.path}"] = entry.sha256
        metrics = self.place / "notes" / "0" / "metrics.json"
        return found | ({"metrics": metrics.read_text(encoding="utf-8")} if notes and metrics.exists() else {})


class Workshop:
    """Runs the components of one plugin in workers, on the kit's samples and the author's.

    Args:
        plugin: the name of an entry point, or a one-file plugin.
        room: an empty directory.
        given: the author's samples, by the name of the input: a path or an artifact.
        configurations: the author's configurations, by the name of the component.
        distribution: the plugin's; empty for a one-file plugin.
        companions: distributions of plugins that it requires, which are loaded with it.
    """

    def __init__(
        self,
        plugin: str | Path,
        room: Path,
        given: Mapping[str, Any],
        configurations: Mapping[str, Mapping[str, Any]],
        distribution: str = "",
        *,
        companions: Sequence[str] = (),
    ) -> None:
        self.plugin = plugin
        self._room = Path(os.path.realpath(room))
        self.given = given
        self.configurations = configurations
        self._workers = Workers(plugin, self._room, distribution, companions)
        self._outcomes: dict[tuple[str, Role], Outcome] = {}
        self._inputs: dict[str, tuple[Artifact, str]] = {}
        self._failed: dict[str, str] = {}
        self._runs = 0
        (self._room / "inputs").mkdir(exist_ok=True)

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def configuration(self, component: Component) -> dict[str, Any]:
        """The author's configuration of a component, as JSON values."""
        chosen = self.configurations.get(component.name, self.configurations.get(str(component), {}))
        configuration: dict[str, Any] = json.loads(json.dumps(chosen, default=str))
        return configuration

    @contextlib.contextmanager
    def checking(self, component: Component, check: str) -> Iterator[None]:
        """Do a check; if a later one of the same component fails for the same reason, it refers to this one."""
        if self._failed.get(str(component)) == check:
            del self._failed[str(component)]  # done again
        try:
            yield
        except BrokenRuleError:
            if check in TELLING:
                self._failed.setdefault(str(component), check)
            raise

    def refer(self, component: Component, *checks: str) -> None:
        """Leave it at the check that has told why the component fails: one of `checks`, or any.

        Raises:
            CannotRunError: if one has.
        """
        told = self._failed.get(str(component))
        if told and told in (checks or TELLING):
            raise CannotRunError(f"see {component}/{told}")

    def ready(self, component: Component) -> dict[str, Any]:
        """The configuration to run a component with.

        Raises:
            CannotRunError: if a parameter or an input is missing that only the author can give.
            BrokenRuleError: if the configuration, or a default, is refused.
        """
        self.refer(component, "schema")
        self._workers.python()
        try:
            component.require_extra()
        except InputError as error:
            raise CannotRunError(f"{error.message}: {error.remedy}") from error
        configuration = self.configuration(component)
        empty = [each.name for each in component.parameters if each.default is each.empty]
        missing = [name for name in empty if name not in configuration]
        if missing:
            wanted = ", ".join(f"{name!r}: …" for name in missing)
            raise CannotRunError(
                f"no value for {', '.join(missing)}: configurations={{{component.name!r}: {{{wanted}}}}}"
            )
        lacking = samples.lacking(component, self.given)
        if lacking:
            raise CannotRunError(f"no sample that it takes of {', '.join(lacking)}: samples={{{lacking[0]!r}: …}}")
        try:
            component.configure(configuration)
        except ConfigurationError as error:
            raise BrokenRuleError(explain(component, configuration, error.problems)) from error
        except PluginError as error:
            raise BrokenRuleError(str(error)) from error
        return configuration

    def sample_run(self, component: Component, role: Role = "plain") -> Outcome:
        """Run a component on its sample, once for each role."""
        key = (str(component), role)
        if key not in self._outcomes:
            self._outcomes[key] = self.run(component, role=role)
        return self._outcomes[key]

    def run(
        self,
        component: Component,
        *,
        role: Role = "plain",
        frames: Sequence[pl.DataFrame] | None = None,
        place: Path | None = None,
        python: Path | None = None,
        kill_at: int | None = None,
    ) -> Outcome:
        """Run a component once.

        Args:
            component: of the plugin.
            role: `plain` as in a run; `guarded` with the guard, in a directory that is not to be written.
            frames: the shards of its rows; the sample's where None.
            place: where to; a new directory where None, else what an earlier attempt left is tidied up.
            python: the interpreter of an environment of its own.
            kill_at: the guarded worker ends at this write.
        """
        configuration = self.ready(component)
        pins = _pins(component, configuration)
        place = self._next_place() if place is None else _tidied(place)
        for name in ("output", "notes", "checkpoint"):
            (place / name).mkdir(exist_ok=True)
        inputs = self._inputs_of(component, frames)
        requests = step_requests(component, configuration, pins, inputs, place)
        with self._workers.listening() as heard:
            error = self._workers.ask(role, requests, place, python=python, kill_at=kill_at)
        return Outcome(place, error, heard)

    def kill(self, component: Component, at: int) -> Outcome:
        """Run a component in a worker that ends at its write number `at`."""
        return self.run(component, role="guarded", kill_at=at)

    def changed_inputs(self, component: Component) -> list[str]:
        """The component's inputs whose files are no longer what they were when this was last asked."""
        changed = []
        for name in (name for name in component.inputs if name != "ctx"):
            key = self._key(component, name)
            artifact, before = self._inputs[key]
            now = _hash(artifact)
            # Other components have the same samples, and are not to blame.
            self._inputs[key] = (artifact, now)
            if now != before:
                changed.append(name)
        return changed

    def _next_place(self) -> Path:
        self._runs += 1
        place = self._room / "runs" / f"{self._runs:04d}"
        place.mkdir()
        return place

    def _inputs_of(self, component: Component, frames: Sequence[pl.DataFrame] | None) -> dict[str, Artifact]:
        names = [name for name in component.inputs if name != "ctx"]
        return {name: self._input(component, name, frames) for name in names}

    def _input(self, component: Component, name: str, frames: Sequence[pl.DataFrame] | None) -> Artifact:
        rows = name in ("frame", "data")
        if rows and frames is not None:
            form = self.form(component)
            return samples.write_dataset(self._room / "inputs" / f"rows-{self._runs:04d}", frames, form)
        key = self._key(component, name)
        if key not in self._inputs:
            artifact = self._make(component, name, self._room / "inputs" / key)
            self._inputs[key] = (artifact, _hash(artifact))
        return self._inputs[key][0]

    def _key(self, component: Component, name: str) -> str:
        own = samples.chosen(component, name, self.given)
        return f"{name}-{own.form if own else samples.form_of(component, name)}"

    def _make(self, component: Component, name: str, directory: Path) -> Artifact:
        chosen = samples.chosen(component, name, self.given)
        if chosen:
            return chosen if chosen.hash else type(chosen).at(chosen.path, chosen.form, _hash(chosen))
        if name in ("subject", "reference"):
            return samples.write_toy_model(directory, seed=int(name == "reference"))
        form = samples.form_of(component, name)
        return samples.write_dataset(directory, [samples.rows(form, samples.texts())], form)

    def form(self, component: Component) -> str:
        """The form of the rows that a component is tried on."""
        name = "frame" if "frame" in component.inputs else "data"
        sample = samples.chosen(component, name, self.given)
        return sample.form if sample else samples.form_of(component, name)

    def rows(self, component: Component) -> pl.DataFrame:
        """The rows of a component's sample, in memory."""
        import polars as pl

        name = "frame" if "frame" in component.inputs else "data"
        return pl.read_parquet(self._input(component, name, None).path / "shard-*.parquet")

    def fresh_import(self) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """Import the plugin in a guarded process of its own: what that loaded, and what the guard heard."""
        from luthier.testing.fresh_import import import_fresh

        with self._workers.listening() as heard:
            answer = import_fresh(self.plugin, self._workers.guarded_environment())
        return answer, heard


def _pins(component: Component, configuration: Mapping[str, Any]) -> dict[str, str]:
    """Every location of a configuration, fetched, with its local path: the component itself gets no network."""
    from luthier.locations import fetch

    locations: list[str] = []

    def keep(location: str) -> str:
        locations.append(location)
        return location

    component.canonical(configuration, keep)
    return {location: str(fetch(location).absolute()) for location in locations}


def _tidied(place: Path) -> Path:
    """As a run does before it tries a step again: only the checkpoint stays."""
    for name in ("output", "notes", "generations"):
        shutil.rmtree(place / name, ignore_errors=True)
    return place


def _hash(artifact: Artifact) -> str:
    return build_manifest(artifact.path, artifact.kind, artifact.form).hash
