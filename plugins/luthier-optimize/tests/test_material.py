"""The recipes that a search runs: their steps are those of the user's recipe, and texts become passages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import luthier
from luthier import InputError
from luthier_optimize.material import PASSAGE, write_passages
from luthier_optimize.steps import overrides_of, recipe_text, renamed, seed_of, written

ROOT = Path(__file__).parents[3]
EVERY_KEY = """
luthier: 1
name: every-key
seed: 11
steps:
  - source: jsonl
    path: texts.jsonl
  - format: prompt-completion
    id: pairs
    prompt: "What does $${HOME} say of {text}?"
    completion: "{text}"
  - format: language-modelling
    from: jsonl
    split: {valid: 0.2, test: 0.3, by: source}
  - architecture: fresh
    parameters: 80K
    tokenizer: {kind: character, size: 64}
  - tune: full
    from: [pairs]
    max_steps: 3
    learning_rate: [0.001, 0.0001]
  - tune: distill
    from: [fresh, pairs]
    teacher: full
    processes: 2
    executor: {name: local}
    max_steps: 3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "a quiet word"}) + "\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(EVERY_KEY, encoding="utf-8")
    return tmp_path / "recipe.yaml"


def told(recipe: Path) -> list[object]:
    """What the key of each step depends on, and what it takes of which."""
    return [
        (
            step.id,
            str(step.component),
            step.config,
            step.source,
            dict(step.named),
            step.executor,
            step.space,
            step.gate,
            step.subjects,
        )
        for planned in luthier.plan(recipe)
        for step in planned.node.parts
    ]


@pytest.mark.parametrize("name", ["every-key", "quickstart"])
def test_a_recipe_written_down_again_is_the_same(name, recipe, tmp_path):
    original = recipe if name == "every-key" else ROOT / "examples" / "quickstart" / "recipe.yaml"
    steps = {step.id: step for planned in luthier.plan(original) for step in planned.node.parts}
    kept = steps.values()
    again = tmp_path / "elsewhere" / "recipe.yaml"
    again.parent.mkdir()
    again.write_text(recipe_text("again", seed_of(original), map(written, kept), "Written\nagain."), encoding="utf-8")
    text = again.read_text(encoding="utf-8")
    assert text.startswith("# Written\n# again.\n")
    assert "batch_size: 8" not in text  # Defaults are left out.
    assert [str(each) for each in told(again)] == [str(each) for each in told(original)]


def test_steps_beside_those_of_another_recipe_have_other_names(recipe, tmp_path):
    steps = [written(step) for planned in luthier.plan(recipe) for step in planned.node.parts][:3]
    both = tmp_path / "both.yaml"
    both.write_text(recipe_text("both", 0, [*steps, *renamed(steps, "other-")], ""), encoding="utf-8")
    read = {each.node.step.id: each.node for each in luthier.plan(both)}
    assert [*read] == [*list(read)[:3], *(f"other-{name}" for name in list(read)[:3])]
    for name in list(read)[1:3]:
        assert read[name].inputs["data"].step.id == "jsonl"
        assert read[f"other-{name}"].inputs["data"].step.id == "other-jsonl"


def test_overrides_stand_above_the_recipe_that_a_run_keeps():
    text = '# --set lora.rank=8\n# --set format.prompt="a=b {text}"\n# A comment\nluthier: 1\n'
    assert overrides_of(text) == {"lora.rank": 8, "format.prompt": "a=b {text}"}


def test_a_text_file_is_cut_into_passages_of_whole_paragraphs(tmp_path):
    paragraphs = [f"Paragraph {number}. " + "word " * (number % 40) for number in range(60)]
    source = tmp_path / "book.txt"
    source.write_text("\r\n\r\n".join(paragraphs), encoding="utf-8-sig")
    lines = write_passages(source, tmp_path / "out" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    passages = [json.loads(line)["text"] for line in lines]
    assert all(len(passage) >= PASSAGE for passage in passages[:-1])
    assert "\n\n".join(passages).split() == "\n\n".join(paragraphs).split()


def test_a_text_file_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        write_passages(tmp_path / "latin.txt", tmp_path / "texts.jsonl")
