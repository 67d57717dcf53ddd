"""Completions are remembered by content: the model, the runtime's code, the prompt and the limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.artifacts import Generator, Prompt, Score
from luthier.files import unique_name

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


class Remembering:
    """A Generator that asks the model only for completions it has not given before.

    Args:
        generator: the loaded model; greedy, so the same prompt has the same completion.
        directory: where the model's completions are kept, a file each.
        runtime: what identifies the runtime: its name, code and versions.

    Attributes:
        labels: see `Classifier`; empty if the model is none.
    """

    def __init__(self, generator: Generator, directory: Path, runtime: str) -> None:
        self._generator = generator
        self._directory = directory
        self._runtime = runtime
        self.labels: Sequence[str] = getattr(generator, "labels", ())

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """As `Generator.generate`."""
        places = [self._place(prompt, max_new_tokens, stop) for prompt in prompts]
        known = {place: completion for place in places if (completion := _read(place)) is not None}
        missing = {place: prompt for place, prompt in zip(places, prompts, strict=True) if place not in known}
        if missing:
            made = self._generator.generate(list(missing.values()), max_new_tokens=max_new_tokens, stop=stop)
            known |= zip(missing, made, strict=True)
            self._directory.mkdir(parents=True, exist_ok=True)
            for place in missing:
                unfinished = place.with_name(unique_name())
                unfinished.write_text(json.dumps(known[place]), encoding="utf-8")
                unfinished.replace(place)
        return [known[place] for place in places]

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Score]:
        """As `Generator.score`."""
        return self._generator.score(prompts, completions)

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterable[NDArray[float32]]:
        """As `Generator.logits`."""
        return self._generator.logits(prompts, completions)

    def _place(self, prompt: Prompt, max_new_tokens: int, stop: Sequence[str]) -> Path:
        question = json.dumps([self._runtime, prompt, max_new_tokens, list(stop)])
        return self._directory / f"{hashlib.sha256(question.encode()).hexdigest()}.json"


def _read(place: Path) -> str | None:
    """A completion that was kept. These files are not flushed one by one: one that a crash cut short is none."""
    try:
        completion = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return completion if isinstance(completion, str) else None
