"""The validator `rouge`, on the rouge-score package (Lin 2004)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from rouge_score.rouge_scorer import RougeScorer

from luthier_validate.generations import complete, keep_generations

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator

METRICS = ("rouge1", "rouge2", "rougeL")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s|(?<=[。！？])|\n\s*\n")  # noqa: RUF001 - Chinese and Japanese stops


class UnicodeWords:
    """Words of every script, lowercase; stands in for rouge-score's tokenizer, which knows a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        """The words of `text`."""
        return re.findall(r"\w+", text.lower())


def measure_rouge(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: str,
    max_examples: int,
    max_new_tokens: int,
    use_stemmer: bool,
    words: str,
) -> None:
    """Record the ROUGE metrics and the table `generations`; see the component `rouge`."""
    examples, outputs = complete(subject, data, split=split, max_examples=max_examples, max_new_tokens=max_new_tokens)
    scorer = RougeScorer(
        list(METRICS), use_stemmer=use_stemmer, tokenizer=UnicodeWords() if words == "unicode" else None
    )
    found = f_measures(scorer, examples.completions, outputs)
    for name in METRICS:
        ctx.metric(name, fmean(found[name]), per_example=found[name])
    lead = f_measures(scorer, examples.completions, [first_sentence(text) for text in documents(examples.asked)])
    ctx.metric("lead_rougeL", fmean(lead["rougeL"]), per_example=lead["rougeL"])
    keep_generations(ctx, examples, outputs, rougeL=found["rougeL"])


def f_measures(scorer: RougeScorer, references: Sequence[str], outputs: Sequence[str]) -> dict[str, list[float]]:
    """The F-measure of each output, by metric."""
    scores = [scorer.score(reference, output) for reference, output in zip(references, outputs, strict=True)]
    return {name: [float(score[name].fmeasure) for score in scores] for name in METRICS}


def documents(prompts: Sequence[str]) -> list[str]:
    """The documents in prompts that one template made: what is left without their common beginning.

    The beginning ends at a line break or, where it has none, after a colon, so that words which all
    documents happen to begin with stay theirs. A single prompt, or prompts without such a beginning,
    are taken to be documents.
    """
    # The first and the last in order share what all share.
    first, last = min(prompts), max(prompts)
    shared = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    common = first[:shared] if first != last else ""
    cut = common.rfind("\n") + 1 or common.rfind(":") + 1
    return [prompt[cut:].strip() for prompt in prompts]


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence or paragraph."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0].strip()
