"""The web server's life: models loaded, a socket opened, requests drained at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import uvicorn

from luthier import InputError
from luthier_serve.app import create_app
from luthier_serve.champion import Follower, was_champion
from luthier_serve.feedback import Keeper
from luthier_serve.guard import Access
from luthier_serve.limits import Limits
from luthier_serve.metrics import Metrics
from luthier_serve.models import Found
from luthier_serve.routes import Desk
from luthier_serve.serving import Served, Serving

CONNECTIONS = 1000
ENDING_SECONDS = 5
"""For clients to take the errors that end their streams."""

log = logging.getLogger("luthier.serve")


@dataclass(frozen=True)
class Settings:
    """What `luthier serve` was told.

    Attributes:
        models: by the names that clients know them by.
        host, port: where to listen; port 0 for any that is free.
        access: who may ask.
        limits: of requests.
        feedback: the file or URL of the log of feedback, empty for its default place; None to take none.
        log_prompts: whether prompts and completions go to the log.
    """

    models: Mapping[str, Found]
    host: str
    port: int
    access: Access
    limits: Limits
    feedback: str | None = None
    log_prompts: bool = False


def serve(settings: Settings, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: what.
        started: called with the server's address once it answers.

    Raises:
        LuthierError: if a model cannot be loaded, or the address cannot be listened at.
    """
    asyncio.run(_serve(settings, started))


async def _serve(settings: Settings, started: Callable[[str], None]) -> None:
    metrics = Metrics()
    served = [Served(name, settings.limits, metrics) for name in settings.models]
    serving = Serving(served)
    champions = {name: each.champion for name, each in settings.models.items() if each.champion is not None}

    def knows(hash: str) -> bool:
        return serving.knows(hash) or any(was_champion(each, hash) for each in champions.values())

    # Before the models are loaded, which takes longer.
    with _listening(settings.host, settings.port) as listener:
        try:
            for model in served:
                await model.use(settings.models[model.name].spec)
            desk = Desk(serving, settings.limits, metrics, settings.log_prompts)
            keeper = None if settings.feedback is None else Keeper(settings.feedback or None, knows)
            config = uvicorn.Config(
                create_app(desk, settings.access, keeper),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                proxy_headers=False,
                ws="none",
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=int(settings.limits.drain_seconds) + ENDING_SECONDS,
            )
            if keeper is not None:
                await asyncio.to_thread(keeper.open)
            started(f"http://{settings.access.name}:{listener.getsockname()[1]}")
            followers = [
                asyncio.create_task(Follower(serving.models[name], champion, metrics).follow())
                for name, champion in champions.items()
            ]
            try:
                await _Server(config, serving, settings.limits.drain_seconds).serve(sockets=[listener])
            finally:
                for follower in followers:
                    follower.cancel()
                await asyncio.gather(*followers, return_exceptions=True)
        finally:
            await serving.end()


class _Server(uvicorn.Server):
    """Ends in order: no new requests, then those that run may end, then they are ended."""

    def __init__(self, config: uvicorn.Config, serving: Serving, drain_seconds: float) -> None:
        super().__init__(config)
        self._serving = serving
        self._drain_seconds = drain_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {
            number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._told_to_end))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _told_to_end(self) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        log.info("shutting down: requests may go on for %g seconds", self._drain_seconds)
        self._serving.stop_accepting()
        self.should_exit = True
        task = asyncio.create_task(self._end_late_ones())
        self._tasks.add(task)

    async def _end_late_ones(self) -> None:
        await asyncio.sleep(self._drain_seconds)
        # Their streams end with an error that says so.
        await self._serving.end()


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: if the address is not this machine's, or taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(found[4][:2], family=found[0], backlog=128)
    except OSError as error:
        raise InputError(
            f"{host}:{port} cannot be listened at: {error.strerror or error}", "Choose another --host or --port."
        ) from error
    return listener
