"""The worker processes that a plugin is checked in, and what the guard heard of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from luthier import environments
from luthier.distributions import normalized
from luthier.errors import LuthierError
from luthier.pool import StepError, Worker, available_cores
from luthier.testing import guard, luthier_conformance
from luthier.testing.verdicts import CannotRunError

Role = Literal["guarded", "plain"]
WORKER_PLUGIN = Path(luthier_conformance.__file__)
TIMEOUT = 300.0
"""Seconds of silence after which a component counts as hanging."""

_NO_PROXY = "http://127.0.0.1:9"
_HASH_SEEDS = {"guarded": "1", "plain": "2"}
"""Sets iterate in another order in each of the two, so that a result that depends on it differs."""


class Workers:
    """Workers that know one plugin: plain ones as in a run, and guarded ones; one of each is kept.

    Args:
        plugin: the name of an entry point, or a one-file plugin.
        room: the directory that they work in.
        distribution: the plugin's; empty for a one-file plugin.
        companions: distributions of plugins that it requires, which are loaded with it.
    """

    def __init__(self, plugin: str | Path, room: Path, distribution: str, companions: Sequence[str]) -> None:
        self._plugin = plugin
        self._room = room
        self._distribution = distribution
        self._companions = companions
        self._kept: dict[Role, Worker] = {}
        for name in ("runs", "elsewhere", "temporary", "cache"):
            (room / name).mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End the workers."""
        while self._kept:
            self._kept.popitem()[1].end()

    def ask(
        self,
        role: Role,
        requests: Sequence[Mapping[str, Any]],
        place: Path,
        *,
        python: Path | None = None,
        kill_at: int | None = None,
    ) -> LuthierError | None:
        """Have requests done one after the other; gives the error that ended them, if one did.

        Args:
            role: of the worker that does them.
            requests: of one component.
            place: the directory with its `output`.
            python: the interpreter of an environment of its own, for a worker of their own.
            kill_at: a worker of their own ends at this write.
        """
        kept = python is None and kill_at is None
        worker = self._worker(role) if kept else self._start(role, python=python, kill_at=kill_at)
        try:
            error = _error_of(worker, requests, place)
        finally:
            if not kept:
                worker.end()
        if kept and error and not isinstance(error, StepError):
            self._kept.pop(role).end()
        return error

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[dict[str, str]]]:
        """Gives a list that holds what the guard heard meanwhile, once the block has ended."""
        log = self._room / "heard.jsonl"
        begun = log.stat().st_size if log.exists() else 0
        heard: list[dict[str, str]] = []
        yield heard
        if log.exists():
            with log.open("rb") as file:
                file.seek(begun)
                heard += [json.loads(line) for line in file]
        heard += self._strays()

    def python(self) -> Path | None:
        """The interpreter of the environment that the plugin declares; None for one without.

        Raises:
            CannotRunError: if it is not built.
        """
        if not self._distribution or not environments.declares(self._distribution):
            return None
        environment = environments.current(normalized(self._distribution))
        if environment is None:
            raise CannotRunError(f"its environment is not built: luthier env build {self._distribution}")
        return environment.python

    def guarded_environment(self, kill_at: int | None = None) -> dict[str, str]:
        """The variables of a process that is guarded: whatever it may write lies in the room."""
        room = self._room
        allowed = [str(room / name) for name in ("runs", "temporary", "cache")]
        settings = {"log": str(room / "heard.jsonl"), "allowed": allowed, "kill_at": kill_at}
        return {
            guard.VARIABLE: json.dumps(settings),
            luthier_conformance.DIRECTORY: str(room / "elsewhere"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(room / "temporary")),
            **dict.fromkeys(("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"), str(room / "cache")),
            # Libraries that are not Python's read these; nothing listens there.
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NO_PROXY),
        }

    def _worker(self, role: Role) -> Worker:
        if role not in self._kept:
            self._kept[role] = self._start(role)
        return self._kept[role]

    def _start(self, role: Role, *, python: Path | None = None, kill_at: int | None = None) -> Worker:
        local = [WORKER_PLUGIN] if isinstance(self._plugin, str) else [self._plugin, WORKER_PLUGIN]
        with _variables(self._environment(role, kill_at)):
            log = self._room / "workers" / f"{role}.log"
            return Worker(
                log, threads=available_cores(), local_plugins=local, timeout=TIMEOUT, python=python or self.python()
            )

    def _environment(self, role: Role, kill_at: int | None) -> dict[str, str]:
        name = self._plugin if isinstance(self._plugin, str) else self._plugin.stem
        plugins = {
            "LUTHIER_PLUGINS": ",".join([name, *self._companions, WORKER_PLUGIN.stem]),
            "LUTHIER_DISABLE": "",
        }
        common = {**plugins, "PYTHONHASHSEED": _HASH_SEEDS[role]}
        return common | (self.guarded_environment(kill_at) if role == "guarded" else {})

    def _strays(self) -> list[dict[str, str]]:
        """Files that lie in the working directory: what native code wrote there."""
        found = sorted(path for path in (self._room / "elsewhere").rglob("*") if path.is_file())
        for path in found:
            path.unlink()
        return [{"kind": "write", "event": "a new file", "target": path.name, "where": ""} for path in found]


def _error_of(worker: Worker, requests: Sequence[Mapping[str, Any]], place: Path) -> LuthierError | None:
    """Have requests done, with what a model completed written to `place`; gives the error that ended them."""
    try:
        for request in requests:
            answer = worker.call(request)
            if "completions" in answer:
                (place / "output" / "completions.json").write_text(json.dumps(answer["completions"]))
    except LuthierError as error:
        return error
    return None


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Workers inherit the environment of this process; so it has these for a moment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
