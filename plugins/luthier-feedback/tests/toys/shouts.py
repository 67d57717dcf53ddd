"""A model that learns one answer for each first word, and a validator of it: whole rounds in seconds."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from luthier import Context, Dataset, Model, Score, component, hookimpl


@component(gives="toy-lm")
def mute(ctx: Context) -> None:
    """A model that answers nothing."""
    (ctx.output / "model.json").write_text("{}")


@component(needs={"data": {"prompt-completion"}, "model": {"toy-lm"}})
def majority(model: Model, data: Dataset, ctx: Context, *, fail: bool = False) -> None:
    """Learn for each first word the answer that was given most often."""
    if fail:
        raise ValueError("the teacher is ill")
    answers = defaultdict(Counter)
    for prompt, completion in data.frame("train").select("prompt", "completion").iter_rows():
        answers[prompt.split()[0]][completion.strip()] += 1
    known = {word: max(sorted(counts), key=counts.__getitem__) for word, counts in answers.items()}
    (ctx.output / "model.json").write_text(json.dumps(known, sort_keys=True))


class Speaker:
    """A Generator that looks at the first word."""

    def __init__(self, path: Path) -> None:
        self._known = json.loads(path.read_text())

    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        return [self._known.get(prompt.split()[0], "") for prompt in prompts]

    def score(self, prompts, completions):
        return [Score((0.0,)) for _ in prompts]

    def logits(self, prompts, completions):
        raise NotImplementedError


def transformers(model: Model, ctx: Context) -> Speaker:
    """Load what was learnt."""
    return Speaker(model.path / "model.json")


@component(metrics=("right", "wrong", "share"))
def answers(subject: Speaker, data: Dataset, ctx: Context) -> None:
    """The share of right answers and of wrong ones; `share` is the first without its examples."""
    rows = data.frame("test")
    given = subject.generate(rows["prompt"].to_list())
    right = [float(one == two.strip()) for one, two in zip(given, rows["completion"], strict=True)]
    share = sum(right) / len(right)
    ctx.metric("right", share, per_example=right)
    ctx.metric("wrong", 1 - share, per_example=[1 - each for each in right])
    ctx.metric("share", share)


@hookimpl
def luthier_architectures():
    return [mute]


@hookimpl
def luthier_tuners():
    return [majority]


@hookimpl
def luthier_runtimes():
    return [transformers]


@hookimpl
def luthier_validators():
    return [answers]
