"""Promotes a run's model to champion, rolls back to an earlier one, and tells plugins of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from luthier import runs
from luthier.champion_history import HistoryEntry, released, taken_back
from luthier.core_stages import CHAMPION
from luthier.discovery import plugin_files
from luthier.entries import check_finished, entry_of, new_entry
from luthier.errors import GateRefused, InputError
from luthier.events import Listener, Promoted, listeners
from luthier.lifecycle import log_of, with_hooks, write_to
from luthier.plugins import load_plugins
from luthier.promotability import check_replaced, find_earlier, objections
from luthier.registry import Champions, is_champion
from luthier.runs import Run
from luthier.sessions import open_store
from luthier.store import Store

if TYPE_CHECKING:
    from luthier.artifacts import Model, OnnxModel

REFUSED_REMEDY = "Nothing was promoted. To promote it all the same, force it and give the reason: --force --reason TEXT"


@dataclass(frozen=True)
class Champion:
    """The model in use under a name.

    Attributes:
        name: the name.
        entry: the entry of the history that made it champion: its run, its model, who promoted it and why.
        store: where it is.
    """

    name: str
    entry: HistoryEntry
    store: Store = field(compare=False)

    @property
    def hash(self) -> str:
        """The model's hash."""
        return self.entry.artifact

    @property
    def number(self) -> int:
        """The number of its entry: greater with every change of champion, whatever the clock says."""
        return self.entry.number

    @property
    def token(self) -> str:
        """Changes with the champion and at no other time, also where the same model is restored."""
        return f"{self.name}:{self.number}:{self.hash}"

    @property
    def run(self) -> Run:
        """The run that made it, with its metrics, reports and gates.

        Raises:
            InputError: if somebody removed it.
        """
        return runs.find_run(self.store, f"{CHAMPION}:{self.name}")

    def model(self, *, verify: bool = False) -> Model | OnnxModel:
        """The model.

        Args:
            verify: read every byte and compare it with the hash; otherwise the files' presence and sizes are.

        Raises:
            InputError: if it is damaged, with the remedy.
        """
        return cast("Model", Champions(self.store).model(self.name, self.entry, verify=verify))

    def current(self) -> Champion:
        """The champion of the name as it is now: reads one small file, so it can be asked each second.

        Raises:
            InputError: if the name has none any more, or the pointer is damaged.
        """
        name, entry = Champions(self.store).resolve(f"{CHAMPION}:{self.name}")
        return Champion(name, entry, self.store)

    def history(self) -> list[HistoryEntry]:
        """Everything that happened under the name, oldest first.

        Raises:
            InputError: if it is damaged.
        """
        return Champions(self.store).history(self.name)

    def taken_back(self) -> dict[str, tuple[HistoryEntry, HistoryEntry]]:
        """The models that people rolled back from, by hash, each with its promotion and the rollback.

        One that was promoted again since, or gone forth to by another rollback, is none of them.

        Raises:
            InputError: if the history is damaged.
        """
        return taken_back(self.history())

    def public(self) -> dict[str, Any]:
        """What `luthier registry show --json` prints."""
        return {"name": self.name, "token": self.token, **asdict(self.entry)}


def find_champion(name: str | None = None, *, home: Path | str | None = None) -> Champion:
    """The champion of a name.

    Args:
        name: the name, or where one is expected that names a model: `champion:NAME`; None or `champion` where the
            store has one champion.
        home: the store; `LUTHIER_HOME`, else `.luthier` in the current directory, if None.

    Raises:
        InputError: if there is none, several that may be meant, or the pointer is damaged.
    """
    return champion_in(open_store(Path.cwd(), home), name)


def list_champions(
    *, home: Path | str | None = None, damaged: Callable[[str, InputError], None] | None = None
) -> list[Champion]:
    """The champions of all names, sorted. One whose pointer is damaged hides no other.

    Args:
        home: the store; `LUTHIER_HOME`, else `.luthier` in the current directory, if None.
        damaged: called with the name of each damaged one and the error, which has the remedy; if None, each is a
            warning of Python's.
    """
    return champions_in(open_store(Path.cwd(), home), damaged or _warn_of)


def champions_in(store: Store, damaged: Callable[[str, InputError], None]) -> list[Champion]:
    """The champions of all names in a store; see `list_champions`."""
    registry = Champions(store)
    found = []
    for name in registry.names():
        try:
            entry = registry.champion(name)
        except InputError as error:
            damaged(name, error)
            continue
        if entry:
            found.append(Champion(name, entry, store))
    return found


def _warn_of(name: str, error: InputError) -> None:
    warnings.warn(str(error), stacklevel=4)


def champion_in(store: Store, name: str | None = None) -> Champion:
    """The champion of a name in a store; see `find_champion`."""
    location = CHAMPION if name is None else name if is_champion(name) else f"{CHAMPION}:{name}"
    found, entry = Champions(store).resolve(location)
    return Champion(found, entry, store)


def promote(
    run: Run | str,
    *,
    name: str | None = None,
    why: str = "",
    force: bool = False,
    decision: Mapping[str, Any] | None = None,
    replacing: int | None = None,
    home: Path | str | None = None,
    plugins: Sequence[str | Path] = (),
    listen: Listener | None = None,
) -> Champion:
    """Make the model of a run champion: its newest, which `luthier generate RUN` asks.

    Args:
        run: a run that is done, or its id, a unique beginning of it, or `latest`.
        name: of what it is to be champion; the recipe's name, if None.
        why: the reason, for the history.
        force: promote it although its gates speak against it; the history keeps what they said. Needs a reason.
        decision: what it was decided by, as JSON values, for the history.
        replacing: the number of the champion that it was compared with, 0 for none: if another has been promoted
            since, nothing is. None does not look.
        home: the store, for a run that is given by name; `LUTHIER_HOME`, else `.luthier` in the current directory.
        plugins: one-file plugins besides those in `plugins.d/`, whose hook is to be told.
        listen: called with the events.

    Returns:
        The champion. If that is what the run's model was before, nothing was done.

    Raises:
        GateRefused: if the run's gates speak against it: one refused, was not judged, or judged against a champion
            that is no longer that.
        InputError: if the run is not finished, made no model, or its model is damaged; or if the champion is not the
            one to be replaced.
    """
    found = run if isinstance(run, Run) else runs.find_run(open_store(Path.cwd(), home), run)
    local = plugin_files(Path.cwd(), list(map(Path, plugins)))
    if force and not why.strip():
        raise InputError("a promotion is forced without a reason", "Give one, which the history keeps: --reason TEXT")
    entry = _entry_of(found, why)
    title = name or found.data.recipe

    def decide(champion: HistoryEntry | None, past: Sequence[HistoryEntry]) -> HistoryEntry | None:
        check_replaced(title, champion, replacing)
        if champion and (champion.run, champion.artifact) == (entry.run, entry.artifact):
            return None
        against = objections(found, title, champion, entry)
        if against and not force:
            raise GateRefused("\n".join([f"{found.id} cannot be promoted:", *against]), REFUSED_REMEDY)
        return replace(entry, overruled=against, decision=dict(decision or {}))

    return _change(found.store, title, decide, local, listen)


def rollback(
    name: str | None = None,
    *,
    to: int | str | None = None,
    why: str = "",
    home: Path | str | None = None,
    plugins: Sequence[str | Path] = (),
    listen: Listener | None = None,
) -> Champion:
    """Make an earlier champion the champion again: the very bytes that were promoted.

    Args:
        name: whose; None where the store has one champion.
        to: the number of a promotion, or the run that was promoted; the one before, if None.
        why: the reason, for the history.
        home: the store; `LUTHIER_HOME`, else `.luthier` in the current directory, if None.
        plugins: one-file plugins besides those in `plugins.d/`, whose hook is to be told.
        listen: called with the events.

    Raises:
        InputError: if there is no such champion, it was forgotten, or its model is damaged.
    """
    store = open_store(Path.cwd(), home)
    local = plugin_files(Path.cwd(), list(map(Path, plugins)))
    title = name_in(store, name)

    def decide(champion: HistoryEntry | None, past: Sequence[HistoryEntry]) -> HistoryEntry | None:
        earlier = find_earlier(title, champion, past, to)
        if champion and champion.promotion == earlier.number:
            return None
        Champions(store).model(title, earlier, verify=True)
        store.touch(earlier.artifact)
        told = ("run", "recipe", "step", "artifact", "kind", "form", "gates")
        of_model = {name: getattr(earlier, name) for name in told}
        return new_entry("rolled back", why, restores=earlier.number, **of_model)

    return _change(store, title, decide, local, listen)


def forget(store: Store, name: str, *, keep: int = 0, why: str = "", withdraw: bool = False) -> HistoryEntry | None:
    """Let earlier champions go: garbage collection may remove them then, and nobody can roll back to them.

    Args:
        store: the store.
        name: whose.
        keep: how many of the newest of the earlier ones stay.
        why: the reason, for the history.
        withdraw: let the champion itself go too, so that the name has none.

    Returns:
        The entry of the history; None where there was nothing to let go.

    Raises:
        InputError: if the name never had a champion.
    """

    def decide(champion: HistoryEntry | None, past: Sequence[HistoryEntry]) -> HistoryEntry | None:
        if not past:
            raise _never(store, name)
        gone, current = released(past), champion.promotion if champion else 0
        left = [each.number for each in past if each.event == "promoted" and each.number not in gone]
        earlier = [number for number in left if number != current]
        going = left if withdraw else earlier[: max(0, len(earlier) - keep)]
        if not going and not (withdraw and champion):
            return None
        return new_entry("withdrawn" if withdraw else "forgotten", why, forgotten=going)

    return Champions(store).change(name, decide)


def name_in(store: Store, name: str | None) -> str:
    """The name whose history is meant: the one given, else the only one that there is.

    Raises:
        InputError: if it never had a champion, or several have.
    """
    registry = Champions(store)
    if name is None:
        names = registry.names()
        return names[0] if len(names) == 1 else registry.resolve(CHAMPION)[0]
    title = name.removeprefix(f"{CHAMPION}:")
    if title not in registry.names():
        raise _never(store, title)
    return title


def _never(store: Store, name: str) -> InputError:
    known = Champions(store).names()
    remedy = f"There are: {', '.join(known)}." if known else "Promote one: luthier registry promote latest"
    return InputError(f"there never was a champion of the name {name!r} in {store.root}", remedy)


def _entry_of(run: Run, why: str) -> HistoryEntry:
    """The entry that promoting a run is, once everything about the run is in order."""
    check_finished(run)
    model = run.model()
    if not run.store.verify(model.hash):
        message = f"the model of the run {run.id} is damaged: its files are not what the run made"
        raise InputError(message, "Make it again: luthier run RECIPE")
    run.store.touch(model.hash)
    step = next(each.id for each in reversed(run.steps) if each.artifact == model.hash)
    return entry_of(run, "promoted", why, step=step, artifact=model.hash, kind=model.kind, form=model.form)


Decide = Callable[[HistoryEntry | None, Sequence[HistoryEntry]], HistoryEntry | None]


def _change(store: Store, name: str, decide: Decide, local: Sequence[Path], listen: Listener | None) -> Champion:
    """Change the champion, and tell of it."""
    before: list[HistoryEntry | None] = []

    def noted(champion: HistoryEntry | None, past: Sequence[HistoryEntry]) -> HistoryEntry | None:
        before.append(champion)
        return decide(champion, past)

    entry = Champions(store).change(name, noted)
    replaced = before[0]
    if entry is None:
        assert replaced is not None
        return Champion(name, replaced, store)
    made = Champion(name, entry, store)
    _tell(made, replaced.run if replaced else "", local, listen)
    return made


def _tell(champion: Champion, replaced: str, local: Sequence[Path], listen: Listener | None) -> None:
    entry, store = champion.entry, champion.store
    event = Promoted(
        name=champion.name,
        number=entry.number,
        run=entry.run,
        step=entry.step,
        artifact=entry.artifact,
        restored=bool(entry.restores),
        replaced=replaced,
        who=entry.who,
        why=entry.why,
        overruled=entry.overruled,
    )
    heard = [listen] if listen else []
    if not (store.runs / entry.run / "run.json").exists():
        listeners(*heard)(event)  # It was removed by hand: there is no log, and nothing to show to a hook.
        return
    run = runs.find_run(store, entry.run)
    with log_of(run) as log:
        with_hooks(load_plugins(local=local), run, listeners(write_to(log, store.root), *heard))(event)
