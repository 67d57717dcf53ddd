"""What the settings of a recipe tell of a model is refused while planning, not hours later at the step."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import luthier
from luthier.errors import InputError
from luthier.nodes import RecipeError

TEXTS = "  - format: language-modelling\n"
PAIRS = "  - format: prompt-completion\n    prompt: '{text}'\n    completion: '{text}'\n"
CHATS = "  - format: chat\n    from: jsonl\n    prompt: '{text}'\n    answer: '{text}'\n"
LABELS = "  - format: classification\n    from: jsonl\n    label: text\n"
GENAI = "  - export: genai\n"
SHORT = "  - prune: layers\n    ratio: 0.5\n"
OPTIMUM = "  - export: optimum\n"
DYNAMO = "  - export: dynamo\n"
HALVES = "  - quantize: float16\n"
INT8 = "  - quantize: int8\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_PLUGINS", "gguf,models,onnx,optimum,prune,quantize,text,tune")
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "the bridge is old"}) + "\n")

    def write(data: str, architecture: str, then: str = ""):
        path = tmp_path / "recipe.yaml"
        path.write_text(
            "luthier: 1\nname: x\nsteps:\n  - source: jsonl\n    path: data.jsonl\n"
            f"{data}  - architecture: {architecture}\n{then}"
        )
        return path

    return write


@pytest.mark.parametrize(
    ("data", "architecture", "then", "says"),
    [
        (TEXTS, "rnn-lm", GENAI, "cannot export the architecture RnnForCausalLM; Write `export: dynamo`"),
        (TEXTS, "fresh\n    family: gpt2", "  - tune: full\n" + GENAI, "cannot export the architecture GPT2LMHead"),
        (TEXTS, "fresh\n    positions: none", GENAI, "cannot export layers without positions, which SmolLM3For"),
        (TEXTS, "rnn-lm", "  - export: gguf\n", "the exporter gguf does not know the architecture rnn-lm; It exports"),
        (TEXTS, "fresh\n    family: opt", "  - export: gguf\n", "the exporter gguf does not know the architecture opt"),
        (
            TEXTS,
            "rnn-lm",
            OPTIMUM,
            "optimum cannot export models of the type 'rnn-lm'; Write `export: dynamo` (luthier-",
        ),
        (PAIRS, "rnn-seq2seq", GENAI, "gives seq2seq-lm; What takes seq2seq-lm: `export: dynamo`."),
        (PAIRS, "fresh\n    family: t5", GENAI, "gives seq2seq-lm; What takes seq2seq-lm: `export: dynamo`."),
        (TEXTS, "fresh", DYNAMO + INT8, "gives decoder; What takes decoder: `quantize: dynamic-int8`, "),
        (TEXTS, "fresh", GENAI + HALVES, "gives genai; What takes genai: `quantize: int4`, `quantize: int8`."),
        (
            TEXTS,
            "rnn-lm",
            SHORT,
            "the layers of a rnn-lm model cannot be pruned; Models of these families can be: llama",
        ),
        (TEXTS, "fresh", INT8, "int8 needs an onnx, but no earlier step gives one; Put an `export` step before it."),
        (TEXTS, "fresh\n    parameters: 15K", "", "15,000 parameters are too few: the smallest shape has"),
        (TEXTS, "rnn-lm\n    parameters: 2K", "", "2,000 parameters are too few: the smallest shape has"),
        (PAIRS, "rnn-seq2seq\n    width: 33", "", "the width 33 is odd"),
        (TEXTS, "fresh\n    tokenizer: {size: 100}", "", "a bpe tokenizer of 100 tokens is too small"),
        (TEXTS, "fresh\n    width: 100\n    heads: 3", "", "no shape has the width 100 with 3 heads"),
        (TEXTS, "fresh", "  - tune: layers\n    top: 0\n", "`top` is 0, and the model has no classification head"),
        (TEXTS, "fresh", "  - tune: layers\n    top: [0, 2]\n", "`top` is 0, and the model has no classification head"),
        (TEXTS, "rnn-lm", "  - tune: extend-vocabulary\n", "a vocabulary of the kind character cannot be extended"),
        (PAIRS, "fresh", "  - tune: soft-prompt\n", "the model has no chat template, which is what puts a soft prompt"),
        (
            TEXTS,
            "fresh",
            CHATS + "  - tune: full\n",
            "a new model has no chat template, so it cannot be given conversations",
        ),
        (
            TEXTS,
            "rnn-lm",
            LABELS + "  - tune: classification-head\n",
            "no classifier of the architecture RnnForCausalLM",
        ),
    ],
)
def test_what_a_recipe_tells_of_a_model_is_refused_while_planning(recipe, data, architecture, then, says):
    with pytest.raises(InputError) as caught:
        luthier.plan(recipe(data, architecture, then))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("data", "architecture", "then"),
    [
        (TEXTS, "fresh", GENAI),
        (TEXTS, "fresh\n    family: qwen3", "  - tune: full\n" + GENAI),
        (TEXTS, "rnn-lm", "  - export: dynamo\n"),
        (TEXTS, "fresh\n    family: gpt2", "  - export: gguf\n"),
        (TEXTS, "fresh\n    family: opt", OPTIMUM),
        (TEXTS, "fresh\n    tokenizer: {kind: byte}", "  - tune: extend-vocabulary\n"),
        (LABELS, "fresh", "  - tune: classification-head\n  - tune: layers\n    top: 0\n"),
        # Nothing is known of what is only read when its turn comes.
        (PAIRS, "pretrained\n    model: .", "  - tune: soft-prompt\n" + GENAI),
    ],
)
def test_what_is_right_or_not_known_is_planned(recipe, data, architecture, then):
    luthier.plan(recipe(data, architecture, then))


@pytest.mark.parametrize(
    ("data", "architecture", "then", "says"),
    [
        (TEXTS, "fresh\n    parameters: 15K", DYNAMO + "  - quantize: dynamic-int8\n", "15,000 parameters are too few"),
        (
            TEXTS.replace("format", "fromat"),
            "fresh",
            "  - tune: full\n" + GENAI + INT8,
            "'fromat' is none; did you mean 'format'?",
        ),
        (TEXTS, "fresh\n  - tuen: lora", "  - tune: full\n" + GENAI + INT8, "'tuen' is none"),
        (
            TEXTS + "  - architektur: rnn-lm\n  - tune: full\n" + DYNAMO,
            "fresh",
            GENAI,
            "'architektur' is none",
        ),
    ],
)
def test_a_step_that_could_not_be_read_is_the_only_one_that_is_complained_of(
    recipe, monkeypatch, data, architecture, then, says
):
    monkeypatch.setenv("LUTHIER_PLUGINS", "models,onnx,quantize,text,tune,validate")
    with pytest.raises(RecipeError) as caught:
        luthier.plan(recipe(data, architecture, then + "  - validate: perplexity\n"))
    [problem] = caught.value.problems
    assert says in str(problem)


@pytest.mark.parametrize(
    ("exporter", "named"), [("genai", "RnnForCausalLM"), ("gguf", "rnn-lm"), ("optimum", "rnn-lm")]
)
def test_planning_it_loads_no_heavy_library(recipe, exporter, named):
    path = recipe(TEXTS, "rnn-lm", f"  - export: {exporter}\n")
    code = (
        "import sys, luthier\n"
        "try:\n    luthier.plan(sys.argv[1])\n"
        "except luthier.InputError as error:\n    assert sys.argv[2] in str(error), error\n"
        "else:\n    raise SystemExit('it was planned')\n"
        "print([name for name in ('torch', 'transformers', 'polars', 'onnx', 'numpy', 'gguf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), named], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
