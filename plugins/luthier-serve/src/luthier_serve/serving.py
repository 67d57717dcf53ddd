"""The models of a server: each in its process, started again where that dies, exchanged without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from luthier import LuthierError
from luthier_serve.errors import ApiError, ending, model_away
from luthier_serve.limits import Limits
from luthier_serve.metrics import Metrics
from luthier_serve.processes import ModelProcess, ModelSpec, ProcessDied

LONGEST_PAUSE = 60.0
RETRY_SECONDS = 2

log = logging.getLogger("luthier.serve")


class Served:
    """A model under its name.

    Args:
        name: by which clients ask for it.
        limits: of the server.
        metrics: counts.

    Attributes:
        since: when the name began to stand for the model of now, in seconds since 1970.
        known: the hashes of all models that the name stood for since the server was started.
    """

    def __init__(self, name: str, limits: Limits, metrics: Metrics) -> None:
        self.name = name
        self.since = 0
        self.known: set[str] = set()
        self._limits = limits
        self._metrics = metrics
        self._places = asyncio.Semaphore(limits.parallel)
        self._promised = 0
        self._current: ModelProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._spec: ModelSpec | None = None
        self._ending = False

    @property
    def spec(self) -> ModelSpec:
        """Of the model that new requests get."""
        assert self._spec is not None
        return self._spec

    @property
    def ready(self) -> bool:
        """Whether a request is answered now."""
        return self._current is not None and not self._current.died.is_set()

    async def use(self, spec: ModelSpec) -> None:
        """Load a model; new requests get it once it is loaded, and those that run end with the one before.

        Raises:
            LuthierError: if it cannot be loaded; nothing has changed then.
        """
        process = await ModelProcess.start(spec)
        before, self._current, self._spec = self._current, process, spec
        self.since = int(time.time())
        self.known.add(spec.hash)
        self._metrics.serves(self.name, spec.hash)
        if self._keeper is not None:
            self._keeper.cancel()
        self._keeper = asyncio.create_task(self._keep(process))
        if before is not None:
            task = asyncio.create_task(before.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def promise(self, count: int) -> None:
        """Accept so many completions, which `complete` then gives.

        Raises:
            ApiError: 429, if there is no place for them to wait; 503, if the server ends.
        """
        if self._ending:
            raise ending()
        if self._promised + count > self._limits.parallel + self._limits.queue:
            raise ApiError(
                429,
                "queue_full",
                f"{self._promised} completions are being written or wait, and there is no place for {count} more",
                retry_after=RETRY_SECONDS,
            )
        self._promised += count

    def release(self, count: int) -> None:
        """So many of those that were promised have ended, or never began."""
        self._promised -= count

    async def complete(self, request: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any]]:
        """The messages of one completion, when its turn has come; see `ModelProcess.complete`.

        Raises:
            ApiError: if the model's process is not there, or dies.
        """
        waiting, active = self._metrics.waiting.labels(self.name), self._metrics.active.labels(self.name)
        with waiting.track_inprogress():
            await self._places.acquire()
        try:
            process = self._current
            if process is None or process.died.is_set():
                raise model_away(self.name)
            with active.track_inprogress():
                async with aclosing(process.complete({**request, "prompt_tokens": self._limits.prompt_tokens})) as told:
                    async for message in told:
                        yield message
        except ProcessDied:
            raise (ending() if self._ending else model_away(self.name)) from None
        finally:
            self._places.release()

    def stop_accepting(self) -> None:
        """Refuse new requests; those that were accepted go on."""
        self._ending = True

    async def end(self) -> None:
        """End its processes."""
        self._ending = True
        if self._keeper is not None:
            self._keeper.cancel()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._current is not None:
            await self._current.end()

    async def _keep(self, process: ModelProcess) -> None:
        """Start the process again whenever it dies, after pauses that grow while it keeps dying."""
        pause = 0.5
        while True:
            began = asyncio.get_running_loop().time()
            await process.died.wait()
            log.error("the process of the model %s died", self.name)
            if asyncio.get_running_loop().time() - began > LONGEST_PAUSE:
                pause = 0.5
            while True:
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
                self._metrics.restarts.labels(self.name).inc()
                try:
                    process = await ModelProcess.start(self.spec)
                except LuthierError as error:
                    log.error("the model %s cannot be started again: %s", self.name, error)
                    continue
                break
            self._current = process
            log.warning("the model %s is there again", self.name)


class Serving:
    """All models of a server, by their names.

    Args:
        models: in the order in which they are told.
    """

    def __init__(self, models: list[Served]) -> None:
        self.models = {model.name: model for model in models}

    def find(self, name: str) -> Served:
        """The model of that name, or with that hash.

        Raises:
            ApiError: 404, if there is none.
        """
        if name in self.models:
            return self.models[name]
        for model in self.models.values():
            if name == model.spec.hash:
                return model
        known = ", ".join(self.models)
        raise ApiError(404, "model_not_found", f"there is no model {name!r} here; there is {known}", param="model")

    def knows(self, hash: str) -> bool:
        """Whether a model of that hash answered here since the server was started."""
        return any(hash in model.known for model in self.models.values())

    @property
    def ready(self) -> bool:
        """Whether all of them answer."""
        return all(model.ready for model in self.models.values())

    def stop_accepting(self) -> None:
        """Refuse new requests."""
        for model in self.models.values():
            model.stop_accepting()

    async def end(self) -> None:
        """End all processes."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(model.end() for model in self.models.values()))
