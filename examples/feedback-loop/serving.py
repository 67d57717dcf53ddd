"""`luthier serve champion` as a process of its own, and clients that ask it all the while."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from openai import OpenAI, OpenAIError

SECONDS = 300.0
"""For which an answer, and a new champion, is waited for: training has the processors meanwhile."""

PAUSE = 15.0
"""Seconds between the requests of a visitor that has time."""


COMMAND = (sys.executable, "-P", "-m", "luthier.cli")


def environment() -> dict[str, str]:
    """That of this process, but for what would lead commands to another store or log than the project's."""
    return {name: value for name, value in os.environ.items() if name not in ("LUTHIER_HOME", "LUTHIER_FEEDBACK")}


class Server:
    """Serves the champion of the store in a directory, until it is closed.

    Attributes:
        url, token: what clients need.
    """

    def __init__(self, directory: Path) -> None:
        self.token = secrets.token_urlsafe(24)
        secret = directory / "token.txt"
        secret.touch(mode=0o600)
        secret.write_text(self.token, encoding="utf-8")
        options = ["serve", "champion", "--port", "0", "--token-file", secret.name, "--timeout", str(SECONDS)]
        log = directory / "server.log"
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [*COMMAND, *options],
                cwd=directory,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if " at " not in line:
            raise SystemExit(f"the server did not start; see {log}")
        self.url = line.rpartition(" at ")[2].strip()
        self._client = OpenAI(base_url=self.url, api_key=self.token, max_retries=0, timeout=SECONDS)

    def ask(self, prompt: str, max_tokens: int = 32) -> tuple[str, str]:
        """The greedy answer to a prompt, and the hash of the model that gave it.

        Raises:
            OpenAIError: if there is none.
        """
        told = self._client.chat.completions.create(
            model="champion", messages=[{"role": "user", "content": prompt}], max_tokens=max_tokens
        )
        return told.choices[0].message.content or "", str(told.system_fingerprint)

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._process.terminate()
        self._process.wait()


class Visitors:
    """Clients that ask on and on until they are closed, whatever happens to the champion, and try nothing twice.

    Attributes:
        answered: how many requests were.
        dropped: what the others were told.
    """

    def __init__(self, server: Server, prompts: Sequence[str]) -> None:
        self.answered = 0
        self.dropped: list[str] = []
        self._server = server
        self._seen: list[list[str]] = [[] for _ in prompts]
        self._lock = threading.Lock()
        self._hurry, self._end = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(prompt, seen), daemon=True)
            for prompt, seen in zip(prompts, self._seen, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def await_champion(self, hash: str) -> float:
        """Ask without a pause until every visitor was answered by this model; gives the seconds.

        Raises:
            SystemExit: if it does not come.
        """
        began = time.monotonic()
        self._hurry.set()
        while not all(seen and seen[-1] == hash for seen in self._seen):
            if time.monotonic() - began > SECONDS:
                raise SystemExit(f"the server did not go over to the champion {hash[:12]}; see server.log")
            time.sleep(0.05)
        self._hurry.clear()
        return time.monotonic() - began

    def champions(self) -> list[list[str]]:
        """The hashes of the models that answered each visitor, in order; those in a row are one."""
        return [[model for model, _ in groupby(seen)] for seen in self._seen]

    def _visit(self, prompt: str, seen: list[str]) -> None:
        while not self._end.is_set():
            try:
                _, model = self._server.ask(prompt, max_tokens=8)
            except OpenAIError as error:
                with self._lock:
                    self.dropped.append(f"{type(error).__name__}: {error}")
                self._end.wait(PAUSE)
                continue
            with self._lock:
                self.answered += 1
            seen.append(model)
            self._hurry.wait(PAUSE)

    def close(self) -> None:
        """Let each have its last answer."""
        self._end.set()
        self._hurry.set()
        for thread in self._threads:
            thread.join()
