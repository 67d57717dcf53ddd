from __future__ import annotations

import polars as pl
import pytest
import sacrebleu
from toy_generator import ToyGenerator

from luthier.testing import make_context
from luthier_validate import bleu, chrf, rouge

ROWS = [
    ("one", "Le chat est assis sur le tapis."),
    ("three", "La bibliothèque lit des fichiers."),
    ("two", "Oui"),
]
ANSWERS = {
    "one": "le chat dort sur le tapis.",
    "three": "une bibliothèque pour lire des fichiers",
    "two": "",
}
REFERENCES = [reference for _, reference in ROWS]
OUTPUTS = [ANSWERS[prompt] for prompt, _ in ROWS]


@pytest.mark.parametrize("options", [{}, {"word_order": 2}])
def test_chrf_is_sacrebleus(pairs, tmp_path, options):
    ctx = make_context(tmp_path)
    chrf(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx, **options)
    assert ctx.metrics["chrf"].value == sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES], **options).score
    assert 0 < ctx.metrics["chrf"].value < 100
    sentences = [
        sacrebleu.sentence_chrf(output, [reference], **options).score
        for output, reference in zip(OUTPUTS, REFERENCES, strict=True)
    ]
    assert ctx.metrics["sentence_chrf"].per_example == pytest.approx(sentences)


def test_chrf_can_take_capitals_for_small_letters(pairs, tmp_path):
    ctx = make_context(tmp_path)
    chrf(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx, lowercase=True)
    lower = [[text.lower() for text in texts] for texts in (OUTPUTS, REFERENCES)]
    assert ctx.metrics["chrf"].value == sacrebleu.corpus_chrf(lower[0], [lower[1]]).score
    assert ctx.metrics["chrf"].value != sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES]).score


@pytest.mark.parametrize("options", [{}, {"tokenizer": "char"}, {"lowercase": True}])
def test_bleu_is_sacrebleus(pairs, tmp_path, options):
    ctx = make_context(tmp_path)
    bleu(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx, **options)
    named = {{"tokenizer": "tokenize"}.get(name, name): value for name, value in options.items()}
    assert ctx.metrics["bleu"].value == sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES], **named).score
    assert 0 < ctx.metrics["bleu"].value < 100
    sentences = [
        sacrebleu.sentence_bleu(output, [reference], **named).score
        for output, reference in zip(OUTPUTS, REFERENCES, strict=True)
    ]
    assert ctx.metrics["sentence_bleu"].per_example == pytest.approx(sentences)


@pytest.mark.parametrize(("validator", "name"), [(chrf, "chrf"), (bleu, "bleu")])
def test_a_perfect_translation_has_100(pairs, tmp_path, validator, name):
    ctx = make_context(tmp_path)
    validator(ToyGenerator(answers=dict(ROWS)), pairs(*ROWS[:2]), ctx)
    assert ctx.metrics[name].value == pytest.approx(100)
    assert ctx.metrics[f"sentence_{name}"].value == pytest.approx(100)


def test_the_score_of_the_corpus_has_no_examples_to_resample(pairs, tmp_path):
    ctx = make_context(tmp_path)
    chrf(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx)
    assert ctx.metrics["chrf"].per_example is None
    assert ctx.metrics["chrf"].value != pytest.approx(ctx.metrics["sentence_chrf"].value)


@pytest.mark.parametrize(
    ("validator", "options", "parts"),
    [(chrf, {"word_order": 2}, ["nc:6", "nw:2", "eff:yes"]), (bleu, {"tokenizer": "intl"}, ["tok:intl", "smooth:exp"])],
)
def test_signatures_are_kept(pairs, tmp_path, validator, options, parts):
    validator(ToyGenerator(answers=ANSWERS), pairs(*ROWS), make_context(tmp_path), **options)
    table = pl.read_parquet(tmp_path / "notes" / "tables" / "signatures.parquet")
    for part in (*parts, f"version:{sacrebleu.__version__}"):
        assert part in table["signature"][0]


def test_the_generations_are_those_that_rouge_keeps(pairs, tmp_path):
    frames = []
    for validator in (rouge, chrf, bleu):
        ctx = make_context(tmp_path / validator.__name__)
        validator(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx, max_new_tokens=7)
        frames.append(pl.read_parquet(ctx.notes / "tables" / "generations.parquet"))
    columns = ["id", "prompt", "reference", "output"]
    assert frames[0].select(columns).equals(frames[1].select(columns))
    assert frames[0].select(columns).equals(frames[2].select(columns))
    assert frames[1].columns == [*columns, "sentence_chrf"]
    assert frames[1]["output"].to_list() == ["le chat", "une bib", ""]
