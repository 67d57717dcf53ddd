"""A server that follows the champion: it looks at the registry's pointer, and changes models, losing no request."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from luthier import Champion, LuthierError
from luthier_serve.metrics import Metrics
from luthier_serve.processes import ModelSpec
from luthier_serve.serving import Served

POLL_SECONDS = 1.0
RETRY_SECONDS = 60.0
"""After which a champion that was refused is tried again: its files may have been restored."""

log = logging.getLogger("luthier.serve")


def spec_of(champion: Champion, like: ModelSpec) -> ModelSpec:
    """The champion's model, every byte of which was compared with its hash, loaded as another one is.

    Raises:
        InputError: if it is damaged.
    """
    model = champion.model(verify=True)
    return replace(like, path=str(model.path.absolute()), kind=model.kind, form=model.form, hash=champion.hash)


def was_champion(champion: Champion, hash: str) -> bool:
    """Whether a model was ever champion of the name, also before this server was started.

    Raises:
        InputError: if the history is damaged.
    """
    return any(entry.artifact == hash for entry in champion.history())


class Follower:
    """Lets a served model be the champion of a name, whichever that is.

    Args:
        model: what is served.
        champion: the one that is served now.
        metrics: counts.
    """

    def __init__(self, model: Served, champion: Champion, metrics: Metrics) -> None:
        self._model = model
        self._champion = champion
        self._metrics = metrics
        self._refused: dict[str, float] = {}

    async def follow(self) -> None:
        """Look each second, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._look()
            except Exception:
                # A bug of ours: it is told with its traceback, and the server goes on with the model that it has.
                log.exception("the champion could not be looked up; what is served goes on")

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self._champion.current)
        except LuthierError as error:
            # The pointer is damaged, or somebody removed it: what is served goes on.
            self._refuse("pointer", error)
            return
        if found.token == self._champion.token or self._waits(found.token):
            return
        try:
            spec = await asyncio.to_thread(spec_of, found, self._model.spec)
            await self._model.use(spec)
        except LuthierError as error:
            self._refuse(found.token, error)
            return
        log.info("the champion is now %s; what it replaced ends with its last answer", found.token)
        self._champion = found
        self._refused.clear()
        self._metrics.switches.labels(self._model.name).inc()

    def _waits(self, token: str) -> bool:
        return self._refused.get(token, 0.0) > asyncio.get_running_loop().time()

    def _refuse(self, token: str, error: LuthierError) -> None:
        if self._waits(token):
            return
        self._refused[token] = asyncio.get_running_loop().time() + RETRY_SECONDS
        self._metrics.refusals.labels(self._model.name).inc()
        log.error("the new champion is refused, %s goes on: %s", self._champion.token, error)
