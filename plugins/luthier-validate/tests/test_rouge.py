from __future__ import annotations

from statistics import fmean

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_generator import ToyGenerator

from luthier.testing import make_context
from luthier_validate import rouge
from luthier_validate.overlap import documents, first_sentence

DOCUMENTS = ["A cat sat. It was red.", "Dogs run far.\n\nVery far.", "the end"]
ROWS = [
    (f"Summarize:\n{text}", summary)
    for text, summary in zip(DOCUMENTS, ["a cat sat", "running dogs", "the end"], strict=True)
]
ANSWERS = dict(zip([prompt for prompt, _ in ROWS], ["a cat sat", "dogs run", "nothing alike"], strict=True))


def test_metrics_are_means_of_their_examples(pairs, tmp_path):
    ctx = make_context(tmp_path)
    rouge(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx)
    assert set(ctx.metrics) == {"rouge1", "rouge2", "rougeL", "lead_rougeL"}
    for metric in ctx.metrics.values():
        assert metric.value == pytest.approx(fmean(metric.per_example))
    # Stemmed, "dogs run" and "running dogs" share both words, and one in order.
    assert ctx.metrics["rouge1"].per_example == pytest.approx((1.0, 1.0, 0.0))
    assert ctx.metrics["rougeL"].per_example == pytest.approx((1.0, 0.5, 0.0))
    # First sentences: "A cat sat.", "Dogs run far." and "the end".
    assert ctx.metrics["lead_rougeL"].per_example == pytest.approx((1.0, 0.4, 1.0))


def test_without_stemming_words_must_be_equal(pairs, tmp_path):
    ctx = make_context(tmp_path)
    rouge(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx, use_stemmer=False)
    assert ctx.metrics["rouge1"].per_example == pytest.approx((1.0, 0.5, 0.0))


def test_generations_are_kept_beside_their_references(pairs, tmp_path):
    ctx = make_context(tmp_path)
    rouge(ToyGenerator(answers=ANSWERS), pairs(*ROWS), ctx, max_new_tokens=5)
    table = pl.read_parquet(tmp_path / "notes" / "tables" / "generations.parquet")
    assert table.columns == ["id", "prompt", "reference", "output", "rougeL"]
    assert table["output"].to_list() == ["a cat", "dogs ", "nothi"]
    assert tuple(table["rougeL"]) == ctx.metrics["rougeL"].per_example


def test_the_words_of_other_scripts_count_where_asked(pairs, tmp_path):
    data = pairs(("a:\nx", "größe файла"), ("a:\ny", "größe файла"))
    answers = dict.fromkeys(["a:\nx", "a:\ny"], "größe файла")
    unicode, ascii_only = make_context(tmp_path / "u"), make_context(tmp_path / "a")
    rouge(ToyGenerator(answers=answers), data, unicode, words="unicode")
    assert unicode.metrics["rouge2"].value == 1.0
    rouge(ToyGenerator(answers=dict.fromkeys(answers, "gr e")), data, ascii_only, words="ascii")
    assert ascii_only.metrics["rouge1"].value == 1.0


@given(st.lists(st.text(), min_size=2), st.sampled_from(["Say it:\n", "In one line: ", "Read this.\n\n"]))
def test_documents_are_found_in_prompts_of_one_template(texts, instruction):
    texts = [*texts, "aa", "bb"]
    assert documents([instruction + text for text in texts]) == [text.strip() for text in texts]


def test_a_single_prompt_is_its_own_document():
    assert documents(["Say it:\nwell"]) == ["Say it:\nwell"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("Version 1.5 is out! Really", "Version 1.5 is out!"),
        ("A title\n\nA text.", "A title"),
        ("over two\nlines. More", "over two\nlines."),
        ("一つ。二つ。", "一つ。"),
        ("", ""),
        ("no end", "no end"),
    ],
)
def test_first_sentences(text, sentence):
    assert first_sentence(text) == sentence
