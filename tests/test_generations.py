"""Completions are asked of the model once, whatever the order, and again if what was kept is broken."""

from __future__ import annotations

from pathlib import Path

from luthier.generations import Remembering


class Counting:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        self.asked += prompts
        return [f"{prompt}!" * max_new_tokens for prompt in prompts]

    def score(self, prompts, completions):
        return []

    def logits(self, prompts, completions):
        return []


def test_the_model_is_asked_once_for_each_prompt(tmp_path: Path) -> None:
    model = Counting()
    first = Remembering(model, tmp_path / "m", "runtime 1")
    assert first.generate(["a", "b", "a"], max_new_tokens=1) == ["a!", "b!", "a!"]
    assert Remembering(model, tmp_path / "m", "runtime 1").generate(["b", "c"], max_new_tokens=1) == ["b!", "c!"]
    assert model.asked == ["a", "b", "c"]


def test_other_limits_another_runtime_and_another_stop_are_other_questions(tmp_path: Path) -> None:
    model = Counting()
    Remembering(model, tmp_path, "runtime 1").generate(["a"], max_new_tokens=1)
    Remembering(model, tmp_path, "runtime 1").generate(["a"], max_new_tokens=2)
    Remembering(model, tmp_path, "runtime 2").generate(["a"], max_new_tokens=1)
    Remembering(model, tmp_path, "runtime 1").generate(["a"], max_new_tokens=1, stop=["."])
    assert model.asked == ["a"] * 4


def test_a_completion_that_a_crash_cut_short_is_made_again(tmp_path: Path) -> None:
    model = Counting()
    Remembering(model, tmp_path, "r").generate(["a"], max_new_tokens=1)
    (kept,) = tmp_path.iterdir()
    kept.write_text('"a')
    assert Remembering(model, tmp_path, "r").generate(["a"], max_new_tokens=1) == ["a!"]
    assert model.asked == ["a", "a"]
