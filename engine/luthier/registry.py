"""Champions: the model that is in use under each name, how it came to be, and the way back.

    registry/NAME/champion.json  the pointer: who is champion, and the last thing that happened
    registry/NAME/history.jsonl  everything that happened, one line each, only ever appended to

A change is one rename: that of the pointer. It holds its line of the history too, so a process that dies before it
could append that line loses nothing: readers add it, and the next writer appends it first. Order is that of the
numbers, which count up; times are only told. A name's lock keeps writers apart; no reader needs it.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from luthier.artifacts import Artifact
from luthier.champion_history import (
    REGISTRY_VERSION,
    Held,
    HistoryEntry,
    NewerRegistry,
    State,
    check_version,
    read_entry,
    released,
)
from luthier.core_stages import CHAMPION
from luthier.errors import InputError
from luthier.files import REMEDY, disk_errors, sync_directory, write_atomically
from luthier.store import Store
from luthier.suggest import did_you_mean

POINTER = "champion.json"
HISTORY = "history.jsonl"
LOCK_SECONDS = 60.0
"""How long a writer waits for another: their work under the lock takes milliseconds."""

LONGEST_DIRECTORY = 100
_NAME = re.compile(r"\w[\w .-]{0,99}")


class Champions:
    """The registry of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.root = store.root / "registry"

    # --- reading --------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The names that ever had a champion, sorted."""
        return sorted(self._directories())

    def state(self, name: str) -> State | None:
        """What the pointer says; None for a name that never had a champion.

        Raises:
            InputError: if it is damaged, or a newer Luthier wrote it.
        """
        path = self._directory(name) / POINTER
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            check_version(record["version"], path)
            champion = read_entry(record["champion"]) if record["champion"] else None
            last = read_entry(record["last"]) if record["last"] else champion
            assert last is not None
            return State(champion, last)
        except FileNotFoundError:
            if not (path.parent / HISTORY).exists():
                return None
            raise self._unreadable(name, path, "it is missing") from None
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise self._unreadable(name, path, f"{type(error).__name__}: {error}") from None

    def champion(self, name: str) -> HistoryEntry | None:
        """The entry that made the champion of a name what it is; None where there is none.

        Raises:
            InputError: if the pointer is damaged.
        """
        state = self.state(name)
        return state.champion if state else None

    def resolve(self, location: str) -> tuple[str, HistoryEntry]:
        """The name and the entry that `champion` (where the store has one) or `champion:NAME` stands for.

        Raises:
            InputError: if there is none, several that may be meant, or its pointer is damaged.
        """
        _, colon, name = location.partition(":")
        if colon:
            entry = self.champion(name)
            if entry:
                return name, entry
            hint = did_you_mean(name, [each for each in self.names() if each != name])
            raise InputError(
                f"there is no champion of the name {name!r} in {self.store.root}",
                hint or "See: luthier registry list. Promote one: luthier registry promote RUN",
            )
        found = [(each, entry) for each in self.names() if (entry := self.champion(each))]
        if not found:
            raise InputError(
                f"there is no champion in {self.store.root}", "Promote one: luthier registry promote latest"
            )
        if len(found) > 1:
            several = ", ".join(f"champion:{each}" for each, _ in found)
            raise InputError(f"there are {len(found)} champions in {self.store.root}", f"Name one: {several}")
        return found[0]

    def has(self, location: str) -> bool:
        """Whether `champion` or `champion:NAME` stands for one."""
        try:
            self.resolve(location)
        except InputError:
            return False
        return True

    def model(self, name: str, entry: HistoryEntry, *, verify: bool = False) -> Artifact:
        """The model of an entry; where `verify`, every byte of it is compared with its hash.

        Raises:
            InputError: if it is damaged or gone.
        """
        sound = not verify or self.store.verify(entry.artifact)
        artifact = self.store.get(entry.artifact) if sound else None
        if artifact is None:
            raise InputError(
                f"the model of the champion {name!r} (number {entry.number}, of the run {entry.run}) is damaged: "
                f"its files in {self.store.root} are not what was promoted",
                f"Go back to an earlier one: luthier registry rollback {name}. Or make it again: luthier run RECIPE",
            )
        return artifact

    def history(self, name: str) -> list[HistoryEntry]:
        """Everything that happened under a name, oldest first; empty for a name that never had a champion.

        Raises:
            InputError: if it is damaged.
        """
        state = self.state(name)
        return self._history(name, state) if state else []

    def held(self) -> Held:
        """What the history names and has not let go.

        Raises:
            InputError: if a history is damaged: without it nobody knows what is to be kept.
        """
        artifacts, runs = set[str](), set[str]()
        for name in self.names():
            state = self.state(name)
            entries = self._history(name, state) if state else []
            gone = released(entries)
            kept = [each for each in entries if each.promotion and each.promotion not in gone]
            for entry in [*kept, *([state.champion] if state and state.champion else [])]:
                artifacts.add(entry.artifact)
                runs.add(entry.run)
        return Held(frozenset(artifacts), frozenset(runs))

    # --- writing --------------------------------------------------------------------------------------

    def change(
        self, name: str, decide: Callable[[HistoryEntry | None, Sequence[HistoryEntry]], HistoryEntry | None]
    ) -> HistoryEntry | None:
        """Append to a name's history, alone.

        Args:
            name: the name.
            decide: given the champion and the history, makes the next entry, whose `number` is filled in; None to
                change nothing. What it raises changes nothing either.

        Returns:
            The entry as it was written.

        Raises:
            InputError: if the name cannot be one, another process holds it, or the disk refuses.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} can be no champion's name", "Letters, digits, spaces, `.`, `-` and `_`.")
        self.store.prepare()
        with disk_errors(self.root, REMEDY), self._alone(name):
            state, sound = self._state_or_rebuilt(name)
            past = self._history(name, state) if state else []
            entry = decide(state.champion if state else None, past)
            if entry is None:
                if state and not sound:
                    self._write(name, state, past)
                return None
            entry = replace(entry, number=past[-1].number + 1 if past else 1)
            champion = state.champion if state else None
            if entry.event == "withdrawn":
                champion = None
            elif entry.artifact:
                champion = entry
            self._write(name, State(champion, entry), past)
            return entry

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        lock = FileLock(self.store.locks / f"registry-{self._directory(name).name}.lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            message = f"another process has been changing the champion {name!r} for {LOCK_SECONDS:.0f} s"
            raise InputError(message, "Wait for it, or end it, and try again. Nothing was changed.") from None
        try:
            yield
        finally:
            lock.release()

    def _write(self, name: str, state: State, past: Sequence[HistoryEntry]) -> None:
        directory = self._directory(name)
        directory.mkdir(parents=True, exist_ok=True)
        # The line before this one may exist in the pointer alone, which is about to be replaced.
        self._append(name, past)
        pointer = {
            "version": REGISTRY_VERSION,
            "name": name,
            "champion": asdict(state.champion) if state.champion else None,
            "last": asdict(state.last) if state.last != state.champion else None,
        }
        write_atomically(directory / POINTER, json.dumps(pointer, ensure_ascii=False, indent=1), self.store.tmp)
        for made in (self.root, self.store.root):
            sync_directory(made)
        # It is done: that a full disk or a kill leaves the line to the next writer must not be told as a failure.
        with contextlib.suppress(OSError):
            self._append(name, [*past[: state.last.number - 1], state.last])

    def _append(self, name: str, entries: Sequence[HistoryEntry]) -> None:
        """Append what the history's file has not yet; an unfinished line at its end goes."""
        path = self._directory(name) / HISTORY
        with path.open("ab+") as file:
            file.seek(0)
            text = file.read()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):
                file.truncate(whole)
            lines = text[:whole].count(b"\n")
            for entry in entries[lines:]:
                record = {"version": REGISTRY_VERSION, "name": name, **asdict(entry)}
                line = json.dumps(record, ensure_ascii=False)
                file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)

    # --- inner parts ----------------------------------------------------------------------------------

    def _state_or_rebuilt(self, name: str) -> tuple[State | None, bool]:
        """The pointer, and whether it is sound; where it is damaged, what the history says, to be written anew."""
        try:
            return self.state(name), True
        except NewerRegistry:
            raise
        except InputError:
            past = self._history(name, None)
            if not past:
                return None, False
            champion = next((each for each in reversed(past) if each.artifact or each.event == "withdrawn"), None)
            return State(champion if champion and champion.artifact else None, past[-1]), False

    def _history(self, name: str, state: State | None) -> list[HistoryEntry]:
        path = self._directory(name) / HISTORY
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            text = b""
        except OSError as error:
            raise InputError(f"the history of the champion {name!r} cannot be read: {error}", f"See {path}.") from None
        entries = []
        # What follows the last line end was not written whole; the pointer has it.
        for number, line in enumerate(text.split(b"\n")[:-1], 1):
            try:
                record = json.loads(line)
                check_version(record.pop("version"), path)
                entry = read_entry(record)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{path}:{number}: it is no entry of a history: {error}", "Restore it.") from None
            if entry.number != number:
                raise InputError(f"{path}:{number}: it is entry {entry.number} of a history", "Restore it.")
            entries.append(entry)
        if state and state.last.number > len(entries):
            entries.append(state.last)
        return entries

    def _directories(self) -> Iterator[str]:
        for directory in self.root.iterdir() if self.root.is_dir() else ():
            named = [name for file in (POINTER, HISTORY) if (name := _named_in(directory / file)) is not None]
            # Where neither can be read, the directory's own name leads to the error that says so.
            yield from named[:1] or ([directory.name] if directory.is_dir() else [])

    def _directory(self, name: str) -> Path:
        """The directory of a name; two names never share one, not even where case counts for nothing."""
        found = re.sub(r"[A-Z.]", lambda letter: f"%{ord(letter[0]):02X}", quote(name, safe=" "))
        found = found.replace(" ", "%20")
        if len(found) > LONGEST_DIRECTORY:
            found = f"{found[:LONGEST_DIRECTORY]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return self.root / found

    def _unreadable(self, name: str, path: Path, why: str) -> InputError:
        return InputError(
            f"the pointer of the champion {name!r} cannot be read ({path}): {why}",
            f"Its history says which models there were: luthier registry rollback {name} --to NUMBER writes it anew.",
        )


def is_champion(location: str) -> bool:
    """Whether what names a run or a model is `champion` or `champion:NAME`."""
    return location == CHAMPION or location.startswith(f"{CHAMPION}:")


def who_is_this() -> str:
    """The user and the host, as far as the system tells."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _named_in(path: Path) -> str | None:
    """The name that a pointer, or the first line of a history, says it is of; None where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text if path.name == POINTER else text.split("\n", 1)[0])
        return str(record["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
