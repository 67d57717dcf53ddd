"""What is told of champions: the lines of a history, what a pointer says, what is kept for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from luthier.errors import InputError
from luthier.store import UPGRADE

REGISTRY_VERSION = 1

HistoryEvent = Literal["promoted", "rolled back", "refused", "evaluated", "forgotten", "withdrawn"]


@dataclass(frozen=True)
class HistoryEntry:
    """One line of a champion's history.

    Attributes:
        number: counts up from 1; a clock that is set back changes nothing in the order.
        event: what happened: a model was `promoted`, an earlier one was restored (`rolled back`), a challenger was
            compared with it and `refused`, it was measured again (`evaluated`), earlier ones were let go
            (`forgotten`), or the name was given up (`withdrawn`).
        time: when, in UTC, in ISO 8601.
        who: the user and the host.
        why: the reason that was given.
        run: the run that made the model; empty where the event is of no model, as all that follow.
        recipe: its recipe's name; of a challenger that was refused, and of an evaluation, only the run and this are
            told.
        step: the step that gave the model.
        artifact: the model's hash.
        kind: `model` or `onnx`.
        form: the artifact's form.
        gates: what the run's gates had decided.
        overruled: what spoke against a promotion that was forced.
        decision: what else it was decided by, as whoever promoted or refused tells it.
        restores: of a rollback, the number of the promotion that it restored; 0 for others.
        forgotten: the numbers of the promotions that were let go.
    """

    number: int
    event: HistoryEvent
    time: str
    who: str
    why: str = ""
    run: str = ""
    recipe: str = ""
    step: str = ""
    artifact: str = ""
    kind: str = ""
    form: str = ""
    gates: list[dict[str, Any]] = field(default_factory=list)
    overruled: list[str] = field(default_factory=list)
    decision: dict[str, Any] = field(default_factory=dict)
    restores: int = 0
    forgotten: list[int] = field(default_factory=list)

    @property
    def promotion(self) -> int:
        """The number of the promotion whose model this one is; 0 where it is of none."""
        return self.restores or (self.number if self.event == "promoted" else 0)


@dataclass(frozen=True)
class State:
    """What the pointer says of a name: its champion, if it has one, and the last entry of its history."""

    champion: HistoryEntry | None
    last: HistoryEntry


@dataclass(frozen=True)
class Held:
    """What garbage collection leaves: the models by hash, and the runs that made them by id."""

    artifacts: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()


class NewerRegistry(InputError):
    """A newer Luthier wrote it."""


def released(entries: Sequence[HistoryEntry]) -> set[int]:
    """The numbers of the promotions that a history has let go."""
    return {number for entry in entries for number in entry.forgotten}


def taken_back(entries: Sequence[HistoryEntry]) -> dict[str, tuple[HistoryEntry, HistoryEntry]]:
    """The models that a rollback took back, by hash, each with its last promotion and that rollback.

    A rollback takes back every promotion after the one that it restores. Whoever promotes such a model again, or goes
    forth to it with another rollback, wants it: then it is none of these.
    """
    found: dict[str, tuple[HistoryEntry, HistoryEntry]] = {}
    promoted: list[HistoryEntry] = []
    for entry in entries:
        if entry.restores:
            found |= {each.artifact: (each, entry) for each in promoted if each.number > entry.restores}
        elif entry.promotion:
            promoted.append(entry)
        if entry.promotion:
            found.pop(entry.artifact, None)
    return found


def check_version(version: object, path: Path) -> None:
    """Refuse what a newer Luthier wrote."""
    if isinstance(version, int) and version > REGISTRY_VERSION:
        raise NewerRegistry(f"{path} has version {version}; this Luthier reads up to {REGISTRY_VERSION}", UPGRADE)


def read_entry(record: Mapping[str, Any]) -> HistoryEntry:
    """The entry that a line or a pointer holds."""
    return HistoryEntry(**{each.name: record[each.name] for each in fields(HistoryEntry)})
