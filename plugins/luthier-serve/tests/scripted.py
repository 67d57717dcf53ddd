"""A runtime for tests: it writes what the prompt says, and notes every step, so that what the server does is seen."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from luthier import Alternative, Context, InputError, Token, component, hookimpl


class Stream:
    """Writes as many words as the prompt says, `count 5`, or its words, `echo a b`; `die` and `bug` do so."""

    def __init__(self, model, prompt, max_new_tokens, sampling, alternatives, schema, template):
        self.model = model
        self.prompt = text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        command, _, rest = text.partition(" ")
        if command == "refuse" and model.settings.get("refuses", True):
            raise InputError("the prompt is not to the model's taste", "Ask otherwise.")
        if command == "count":
            self.words = [f"{word} " for word in range(int(rest.split()[0]))]
        elif command == "seed":
            self.words = [f"{sampling.seed} {sampling.temperature} {sampling.top_p}"]
        elif command == "schema":
            self.words = [schema or "none"]
        elif command == "template":
            self.words = [str(template)]
        elif command == "greet":
            self.words = [model.settings.get("greeting", "hello")]
        else:
            self.words = [f"{word} " for word in rest.split()]
        self.command = command
        self.prompt_tokens = (
            int(rest.split()[-1]) if command == "count" and len(rest.split()) > 1 else len(text.split())
        )
        self.unread = self.prompt_tokens
        self.left = max_new_tokens
        self.alternatives = alternatives

    def read(self):
        self.model.note(f"{self.prompt}: read")
        self.unread = max(0, self.unread - 128)
        return self.unread

    def step(self):
        time.sleep(self.model.settings.get("pause", 0))
        self.model.note(f"{self.prompt}: step")
        if self.command == "die":
            os._exit(9)
        if self.command == "bug":
            raise ValueError(f"the prompt was: {self.words}")
        if self.command == "hang":
            time.sleep(3600)
        word = self.words.pop(0) if self.words else ""
        self.left -= 1
        end = "stop" if not self.words else "" if self.left else "length"
        others = tuple(Alternative(n, f"other{n}", -float(n + 1)) for n in range(self.alternatives))
        return Token(len(word), word, word, -0.5, others, end)

    def close(self):
        self.model.note(f"{self.prompt}: close")


class Model:
    def __init__(self, directory: Path):
        self.directory = directory
        self.settings = json.loads((directory / "config.json").read_text())
        time.sleep(self.settings.get("load", 0))
        if self.settings.get("damaged"):
            raise InputError("the weights are damaged", "Export the model again.")

    def note(self, line):
        with Path(os.environ["SCRIPTED_LOG"]).open("a") as file:
            file.write(line + "\n")

    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        raise NotImplementedError

    def open(self, prompt, *, max_new_tokens=128, sampling=None, alternatives=0, schema=None, template=True):
        return Stream(self, prompt, max_new_tokens, sampling, alternatives, schema, template)


@component(streams=True)
def scripted(model, *, greeting: str = ""):
    """Writes what the prompt says; another greeting than the model's, if one is given."""
    loaded = Model(model.path)
    if greeting:
        loaded.settings["greeting"] = greeting
    return loaded


@component()
def greedy_only(model):
    """Does not stream."""
    return Model(model.path)


@component(gives="causal-lm")
def toy(ctx: Context, *, greeting: str = "hello", pause: float = 0.0, damaged: bool = False) -> None:
    """A model that the runtime loads, unless it is damaged."""
    settings = {"greeting": greeting, "pause": pause, "damaged": damaged}
    (ctx.output / "config.json").write_text(json.dumps(settings))


@hookimpl
def luthier_architectures():
    return [toy]


@hookimpl
def luthier_runtimes():
    return [scripted, greedy_only]
