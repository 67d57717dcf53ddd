"""The validator `classification`: a classifier, or a generator as one, by how probable it finds each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import polars as pl

from luthier import InputError
from luthier_validate.examples import Examples, select_examples
from luthier_validate.generations import keep_generations
from luthier_validate.likelihood import negative_log_likelihoods
from luthier_validate.templates import DEFAULT_PROMPT, fill

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator

MOST_LABELS = 100
"""Each label is scored after each prompt; free text with a thousand of them is no classification."""


@dataclass(frozen=True)
class ClassScore:
    """One label: how often it is right (`support`) and chosen (`predicted`), and how the two agree."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


def measure_classification(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: str,
    max_examples: int,
    prompt: str | None,
    per_token: bool,
) -> None:
    """Record accuracies, macro-F1 and the tables; see the component `classification`.

    Raises:
        InputError: if the split is empty, the labels are too few, too many, or not scored, or a classifier was trained
            on others.
        PluginError: if the subject gives log-probabilities that are none.
    """
    examples = select_examples(data, split, max_examples)
    truth = examples.completions
    labels = known_labels(subject)
    if labels:
        check_known(truth, labels)
    else:
        labels = find_labels(data)
        examples = _prompted(examples, data.form, prompt, labels)
    chosen = classify(subject, examples, labels, per_token=per_token)
    correct = _agreement(truth, chosen)
    classes = class_scores(truth, chosen)
    ctx.metric("accuracy", fmean(correct), per_example=correct)
    # A macro average is no mean over examples, so that it has none for a gate to resample.
    ctx.metric("macro_f1", macro_f1(classes))
    _record_majority(data, truth, ctx)
    keep_generations(ctx, examples, chosen, correct=correct)
    ctx.table("classes", pl.DataFrame(classes))
    ctx.table("confusion", pl.DataFrame(confusion(truth, chosen)))


def known_labels(subject: Generator) -> list[str]:
    """The labels of a `luthier.Classifier`; none of another model, which may be asked for any."""
    return list(getattr(subject, "labels", ()))


def check_known(truth: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse to measure a classifier on labels that it cannot choose.

    Raises:
        InputError: naming them.
    """
    unknown = sorted({*truth} - {*labels})
    if unknown:
        raise InputError(
            f"the model has no label {', '.join(map(repr, unknown[:5]))}, which examples have; "
            f"it has {', '.join(labels)}",
            "Measure it on data of the labels that it was trained on, leave it out (`subjects: [candidate]`), or put a "
            "new head on it (`tune: classification-head`) and train that.",
        )


def find_labels(data: Dataset) -> list[str]:
    """The labels of all splits, sorted.

    Raises:
        InputError: if they are fewer than two, or more than `MOST_LABELS`.
    """
    column = _label_column(data)
    labels: list[str] = data.scan().select(pl.col(column).drop_nulls().unique().sort()).collect()[column].to_list()
    if not 2 <= len(labels) <= MOST_LABELS:
        raise InputError(
            f"the column {column!r} has {len(labels)} different values: to classify takes 2 to {MOST_LABELS} labels",
            "Look at the data that the `format` step gave; `rouge` and `chrf` measure free text.",
        )
    return labels


def classify(subject: Generator, examples: Examples, labels: Sequence[str], *, per_token: bool) -> list[str]:
    """The most probable label of each example; of equals, the first.

    Args:
        subject: scores each label as the completion of each prompt.
        examples: their completions are not read.
        labels: to choose from.
        per_token: compare the mean log-probability of a label's tokens in place of the sum.

    Raises:
        InputError: if the subject scores no token of a label.
        PluginError: if log-probabilities are not finite.
    """
    prompts = [prompt for prompt in examples.prompts for _ in labels]
    scores = subject.score(prompts, [*labels] * len(examples.ids))
    lengths = [len(score.log_probabilities) for score in scores]
    if 0 in lengths:
        example, label = divmod(lengths.index(0), len(labels))
        raise InputError(
            f"example {examples.ids[example]}: the model scores no token of the label {labels[label]!r}",
            "Give the labels names that are not empty, and the examples prompts.",
        )
    nats = negative_log_likelihoods(scores)
    costs = [total / length for total, length in zip(nats, lengths, strict=True)] if per_token else nats
    rows = [costs[start : start + len(labels)] for start in range(0, len(costs), len(labels))]
    return [labels[row.index(min(row))] for row in rows]


def class_scores(truth: Sequence[str], chosen: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of each label that is right or chosen anywhere; 0 where one has no examples."""
    support, predicted = Counter(truth), Counter(chosen)
    hits = Counter(right for right, found in zip(truth, chosen, strict=True) if right == found)
    return [
        ClassScore(
            label,
            hits[label] / max(1, predicted[label]),
            hits[label] / max(1, support[label]),
            # The harmonic mean of the two, without dividing by zero where both are.
            2 * hits[label] / (support[label] + predicted[label]),
            support[label],
            predicted[label],
        )
        for label in sorted({*support, *predicted})
    ]


def macro_f1(classes: Sequence[ClassScore]) -> float:
    """The mean of the labels' F1, each counting the same."""
    return fmean(each.f1 for each in classes)


def confusion(truth: Sequence[str], chosen: Sequence[str]) -> Mapping[str, list[str] | list[int]]:
    """The confusion matrix as columns: a row for each right label, a column for each chosen one."""
    labels = sorted({*truth, *chosen})
    pairs = Counter(zip(truth, chosen, strict=True))
    columns = {f"chosen: {found}": [pairs[right, found] for right in labels] for found in labels}
    return {"label": labels, **columns}


def _record_majority(data: Dataset, truth: Sequence[str], ctx: Context) -> None:
    """What always choosing the commonest label of the training split reaches; nothing where that is empty."""
    counted = Counter(data.frame("train")[_label_column(data)].drop_nulls().to_list())
    if not counted:
        ctx.log.warning("no majority baseline: the data has no training examples to count labels in")
        return
    commonest = min(counted, key=lambda label: (-counted[label], label))
    always = [commonest] * len(truth)
    correct = _agreement(truth, always)
    ctx.metric("majority_accuracy", fmean(correct), per_example=correct)
    ctx.metric("majority_macro_f1", macro_f1(class_scores(truth, always)))


def _prompted(examples: Examples, form: str, prompt: str | None, labels: Sequence[str]) -> Examples:
    if form == "classification":
        template = DEFAULT_PROMPT if prompt is None else prompt
        listed = ", ".join(labels)
        filled = [fill(template, text=str(text), labels=listed) for text in examples.prompts]
        return Examples(examples.ids, [*filled], examples.completions)
    if prompt is not None:
        raise InputError(
            f"prompt: the examples are of the form {form}, and have their prompts already",
            "Leave `prompt` out: the model is asked as it was trained.",
        )
    return examples


def _label_column(data: Dataset) -> str:
    return "label" if data.form == "classification" else "completion"


def _agreement(truth: Sequence[str], chosen: Sequence[str]) -> list[float]:
    return [float(right == found) for right, found in zip(truth, chosen, strict=True)]
