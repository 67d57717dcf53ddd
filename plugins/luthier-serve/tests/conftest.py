from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI

SCRIPTED = Path(__file__).parent / "scripted.py"
SECONDS = 60.0


class Server:
    """`luthier serve` in a process of its own, as users start it, with a scripted model.

    Attributes:
        url: where it answers.
        page: the address for browsers that it printed, with the token where it made one.
        token: that it printed; empty if it printed none.
        model: the name that it is asked by.
    """

    def __init__(
        self, room: Path, *options: str, token: str = "", model: str = "", scripted: bool = True, **settings: Any
    ) -> None:
        self.model = Path(model).name if model else "toy"
        self._steps, self._errors = room / "steps.log", room / "server.log"
        room.mkdir(exist_ok=True)
        environment = {
            **os.environ, "SCRIPTED_LOG": str(self._steps), "LUTHIER_FEEDBACK": str(room / "feedback.db")
        }  # fmt: skip
        if not model:
            (room / "toy").mkdir()
            (room / "toy" / "config.json").write_text(json.dumps(settings))
        if scripted:
            options = (*options, "--plugin", str(SCRIPTED), "--runtime", "scripted")
            environment["LUTHIER_PLUGINS"] = "scripted,serve"
        arguments = ["-P", "-m", "luthier.cli", "serve", model or str(room / "toy"), "--port", "0", *options]
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        line = self.process.stdout.readline()
        if " at " not in line:
            raise AssertionError(f"the server said {line!r}: {self.log}")
        self.url = line.rsplit(" at ", 1)[1].strip().removesuffix("/v1")
        self.token = token
        if not token and "--no-token" not in options:
            self.token = self.process.stdout.readline().removeprefix("token: ").strip()
        self.page = self.process.stdout.readline().removeprefix("page: ").strip()
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        self.http = httpx2.Client(base_url=self.url, headers=headers, timeout=SECONDS)
        self.openai = OpenAI(base_url=f"{self.url}/v1", api_key=self.token or "none", max_retries=0, timeout=SECONDS)

    @property
    def log(self) -> str:
        """What the server said so far."""
        return self._errors.read_text()

    @property
    def steps(self) -> list[str]:
        """Each step that the model did."""
        return self._steps.read_text().splitlines() if self._steps.exists() else []

    def chat(self, text: str, **options: Any) -> Any:
        """Ask, as the official client does."""
        return self.openai.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": text}], **options
        )

    def post(self, text: str = "count 2", **body: Any) -> httpx2.Response:
        """Ask without a client in between."""
        messages = [{"role": "user", "content": text}]
        return self.http.post("/v1/chat/completions", json={"model": self.model, "messages": messages, **body})

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    @staticmethod
    def wait_until(true: Callable[[], bool]) -> None:
        """Wait for something that comes; fails where it does not."""
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, "it did not come"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def close(self) -> None:
        """End it, however it is."""
        self.http.close()
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with everything by default."""
    started = Server(tmp_path_factory.mktemp("server"), pause=0.01)
    yield started
    started.close()


@pytest.fixture(scope="session")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with narrow limits, which pages of one origin may ask."""
    options = ("--timeout", "2", "--max-prompt-tokens", "5", "--max-request", "2")
    origin = ("--allow-origin", "https://app.example.org")
    started = Server(tmp_path_factory.mktemp("limited"), *options, *origin, pause=0.02)
    yield started
    started.close()


@pytest.fixture(scope="session")
def real_server() -> Callable[..., Server]:
    """Serves a model that is one, with all plugins; the caller ends it."""

    def call(model: Path, room: Path, *options: str) -> Server:
        return Server(room, *options, model=str(model), scripted=False)

    return call


@pytest.fixture(scope="session")
def server_at() -> Callable[..., Server]:
    """Serves a scripted model in a directory; the caller ends it."""
    return Server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers with options, and ends them."""
    servers = []

    def call(*options: str, **settings: Any) -> Server:
        servers.append(Server(tmp_path / f"server-{len(servers)}", *options, **settings))
        return servers[-1]

    yield call
    for each in servers:
        each.close()
