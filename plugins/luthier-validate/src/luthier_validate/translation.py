"""The validators `chrf` and `bleu`, on the sacrebleu package (Post 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import polars as pl
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from luthier_validate.generations import complete, keep_generations

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator


@dataclass(frozen=True)
class Measure:
    """A measure of sacrebleu in two forms.

    Attributes:
        name: of the metric.
        corpus: gives the score of a corpus.
        sentence: gives the score of a single sentence; BLEU's leaves out orders that it is too short for.
    """

    name: str
    corpus: CHRF | BLEU
    sentence: CHRF | BLEU


def chrf_measure(*, word_order: int, lowercase: bool) -> Measure:
    """chrF, or chrF++ with a `word_order` of 2."""
    metric = CHRF(word_order=word_order, lowercase=lowercase)
    return Measure("chrf", metric, metric)


def bleu_measure(*, tokenizer: str, lowercase: bool) -> Measure:
    """BLEU of n-grams up to 4; sacrebleu's own smoothing (exp)."""
    # Forced: its warning of text that looks tokenised is for files of shared tasks.
    sentence = BLEU(tokenize=tokenizer, lowercase=lowercase, force=True, effective_order=True)
    return Measure("bleu", BLEU(tokenize=tokenizer, lowercase=lowercase, force=True), sentence)


def measure_translation(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    measure: Measure,
    *,
    split: str,
    max_examples: int,
    max_new_tokens: int,
) -> None:
    """Record a measure of the corpus, the mean of its sentences, and the tables `generations` and `signatures`.

    Raises:
        InputError: if the split is empty.
    """
    examples, outputs = complete(subject, data, split=split, max_examples=max_examples, max_new_tokens=max_new_tokens)
    corpus = corpus_score(measure, examples.completions, outputs)
    sentences = sentence_scores(measure, examples.completions, outputs)
    # A corpus score is no mean of its sentences', so that it has no examples for a gate to resample.
    ctx.metric(measure.name, corpus)
    ctx.metric(f"sentence_{measure.name}", fmean(sentences), per_example=sentences)
    keep_generations(ctx, examples, outputs, **{f"sentence_{measure.name}": sentences})
    signatures = {
        "metric": [measure.name, f"sentence_{measure.name}"],
        "score": [corpus, fmean(sentences)],
        "signature": [str(each.get_signature()) for each in (measure.corpus, measure.sentence)],
    }
    ctx.table("signatures", pl.DataFrame(signatures))


def corpus_score(measure: Measure, references: Sequence[str], outputs: Sequence[str]) -> float:
    """The score of all outputs together, from 0 to 100."""
    return float(measure.corpus.corpus_score(list(outputs), [list(references)]).score)


def sentence_scores(measure: Measure, references: Sequence[str], outputs: Sequence[str]) -> list[float]:
    """The score of each output by itself, from 0 to 100."""
    pairs = zip(references, outputs, strict=True)
    return [float(measure.sentence.sentence_score(output, [reference]).score) for reference, output in pairs]
