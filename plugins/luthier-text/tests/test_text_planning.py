"""What is wrong by the configuration alone is found while planning, before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

import luthier
from luthier import LuthierError

HEAD = "luthier: 1\nname: planned\nsteps:\n"


def plan(directory: Path, *steps: str) -> None:
    (directory / "corpus").mkdir(exist_ok=True)
    (directory / "corpus" / "a.txt").write_text("a text")
    recipe = directory / "recipe.yaml"
    recipe.write_text(HEAD + "".join(f"  - {step}\n" for step in steps))
    luthier.plan(recipe)


SOURCE = "source: text-files\n    path: corpus"
WRONG = [
    ('format: summarization\n    prompt: "{text"', "prompt: expected '}' before end of string in '{text'"),
    ('format: summarization\n    prompt: "{}"', "prompt: {} is not the name of a column"),
    ('format: summarization\n    prompt: "{text!r}"', "prompt: {text} is not the name of a column"),
    ('format: summarization\n    prompt: "{text.upper}"', "prompt: {text.upper} is not the name of a column"),
    (
        f'format: summarization\n    prompt: "{"x" * 40}{{text}}"\n    max_prompt_characters: 40',
        "prompt: 40 characters without {text} leave no room for it within max_prompt_characters: 40",
    ),
    (
        "format: summarization\n    split: {valid: 0.7, test: 0.5}",
        "recipe.yaml:7:5: steps[1].split: valid 0.7 and test 0.5 leave nothing to train on",
    ),
    ("format: language-modelling\n    split: {valid: 0.5, test: 0.5}", "leave nothing to train on"),
    (
        "clean: length\n    min_characters: 10\n    max_characters: 9",
        "min_characters: 10 is more than max_characters: 9",
    ),
    ("clean: length\n    min_words: 3\n    max_words: 2", "min_words: 3 is more than max_words: 2"),
    ("clean: normalise\n    language: xx\n    words: stem", "language: no stemmer for 'xx'"),
    ("clean: normalise\n    language: xx\n    words: lemmatize", "language: no lemmas for 'xx'"),
    ("clean: normalise\n    columns: [text, text]", "columns: 'text' is named twice"),
    ("clean: unicode\n    columns: [text, text]", "columns: 'text' is named twice"),
    ("clean: whitespace\n    columns: [text, text]", "columns: 'text' is named twice"),
    ("clean: exact-duplicates\n    columns: [text, text]", "columns: 'text' is named twice"),
]


@pytest.mark.parametrize(("step", "message"), WRONG)
def test_a_wrong_step_is_refused_by_place(step: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LuthierError) as error:
        plan(tmp_path, SOURCE, step)
    assert message in str(error.value)
    assert "recipe.yaml:6:5: steps[1]" in str(error.value) or "recipe.yaml:7:5: steps[1].split" in str(error.value)
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("encoding: utf-99", "no encoding is called 'utf-99'"),
        ("encoding: base64", "'base64' is no encoding of text"),
        ('pattern: "../*.txt"', "the pattern '../*.txt' leaves the directory"),
        ('pattern: "/*.txt"', "'/*.txt' is no pattern of files"),
        ('pattern: "**.txt"', "'**.txt' is no pattern of files"),
    ],
)
def test_a_wrong_source_is_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LuthierError, match=r"recipe\.yaml:4:5: steps\[0\]: ") as error:
        plan(tmp_path, f"{SOURCE}\n    {source}")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "step",
    [
        'format: summarization\n    prompt: "{text} {{of}} {source}"\n    split: {valid: 0.5, test: 0.4}',
        f'format: summarization\n    prompt: "{"x" * 39}{{text}}"\n    max_prompt_characters: 40',
        # No room is needed where there is no text.
        f'format: summarization\n    prompt: "{"x" * 60}{{source}}"\n    max_prompt_characters: 40',
        "clean: length\n    min_characters: 9\n    max_characters: 9",
        "clean: normalise\n    language: xx\n    lowercase: true",
        "clean: normalise\n    language: de\n    words: lemmatize",
    ],
)
def test_what_is_right_is_planned(step: str, tmp_path: Path) -> None:
    plan(tmp_path, SOURCE, step)


@pytest.mark.parametrize(
    ("source", "kept", "unrelated"),
    [
        ("text-files\n    path: corpus", "b.txt", "README.md"),
        ("text-files\n    path: corpus\n    pattern: '*.md'", "b.md", "b.txt"),
        ("jsonl\n    path: corpus", "deep/b.jsonl", "README.md"),
    ],
)
def test_only_a_file_that_it_would_read_makes_a_source_run_again(
    source: str, kept: str, unrelated: str, tmp_path: Path
) -> None:
    corpus, recipe = tmp_path / "corpus", tmp_path / "recipe.yaml"
    (corpus / "deep").mkdir(parents=True)
    for name in ("a.txt", "a.md", "a.jsonl"):
        (corpus / name).write_text('{"text": "a text"}\n')
    recipe.write_text(f"{HEAD}  - source: {source}\n")

    def state() -> str:
        (planned,) = luthier.plan(recipe)
        return planned.state

    luthier.run(recipe, display=False)
    (corpus / unrelated).write_text("of no concern")
    assert state() == "cached"
    (corpus / kept).write_text('{"text": "more text"}\n')
    assert state() == "runs"
