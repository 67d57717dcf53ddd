"""Validators: likelihood, overlap with references, classification, and parity of two models.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Interval

from luthier import InputError, component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator, Known

Tokenizer = Literal["13a", "intl", "char", "zh", "none"]


def _check_prompt(*, prompt: str | None, **_: object) -> None:
    if prompt is not None:
        from luthier_validate.templates import check_template

        check_template(prompt)


def _check_labelled(_configuration: Mapping[str, Any], *, data: Known, subject: Known) -> None:
    if subject.form == "sequence-classifier" and data.form != "classification":
        raise InputError(
            f"a classifier reads texts as they are, and the data is of the form {data.form}",
            "Measure it on texts with labels (`format: classification`).",
        )


def _check_baselines(*, split: str, baselines: list[str], **_: object) -> None:
    if baselines and split == "train":
        raise InputError(
            "baselines: they learn from the split 'train', so they cannot be measured on it",
            "Measure on 'test' or 'valid', or set `baselines: []`.",
        )


def _check_texts(_configuration: Mapping[str, Any], *, data: Known, **models: Known) -> None:
    if any(model.form == "sequence-classifier" for model in models.values()):
        raise InputError(
            "a classifier chooses one of its labels, and writes no text", "Measure it with `validate: classification`."
        )


def _check_scored(configuration: Mapping[str, Any], *, data: Known, **models: Known) -> None:
    _check_texts(configuration, data=data, **models)
    paired = any(model.form in ("seq2seq-lm", "encoder-decoder") for model in models.values())
    if data.form == "language-modelling" and paired:
        raise InputError(
            "an encoder-decoder gives texts without a prompt no probability",
            "Measure it on pairs of prompts and completions.",
        )


@component(
    needs={"data": {"prompt-completion", "chat", "language-modelling"}},
    check_inputs=_check_scored,
    metrics=("perplexity", "bits_per_byte"),
)
def perplexity(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] | None = None,
) -> None:
    """Measure perplexity and bits per byte on held-out text.

    Metrics: `perplexity`, per token of the completions (or texts), and `bits_per_byte`, which also
    compares models of different tokenizers. Tokens that end a turn count. Plain text that is longer than the
    model's context is read in windows that overlap by half.

    Args:
        split: the examples to measure on.
        max_examples: measure on so many, chosen by a hash of their ids and spread over groups; all by
            default.
    """
    from luthier_validate.likelihood import measure_perplexity

    measure_perplexity(subject, data, ctx, split=split, max_examples=max_examples)


def _bits_per_byte(*, baselines: list[str], **_: object) -> list[str]:
    return ["bits_per_byte", *(f"{baseline}_bits_per_byte" for baseline in baselines)]


@component(
    needs={"data": {"prompt-completion", "language-modelling"}},
    check=_check_baselines,
    check_inputs=_check_scored,
    metrics=_bits_per_byte,
)
def bits_per_byte(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] | None = None,
    baselines: list[Literal["xz", "ngram"]] = [],  # noqa: B006
) -> None:
    """Measure bits per byte of UTF-8, and what needs no neural model on the same bytes.

    Compares models whatever their tokenizers. Metrics: `bits_per_byte`; `ngram_bits_per_byte` and
    `xz_bits_per_byte` where the baselines are asked for. The table `bits_per_byte` has them with nats and
    bytes, `bits_per_byte_examples` the single examples.

    Both baselines learn from the texts (or completions) of the training split, and never read prompts.
    `ngram` is a 5-gram model of bytes with interpolated Kneser-Ney smoothing. `xz` is what `xz -9e`
    makes of the training and the measured texts, less what it makes of the training texts alone; it looks
    back 64 MiB. Where the end of a completion is scored, both code it too. A model without a
    beginning-of-sequence token does not score a text's first token, but its bytes count: in short texts
    its number is too low.

    Args:
        split: the examples to measure on.
        max_examples: measure on so many, chosen by a hash of their ids and spread over groups; all by
            default.
        baselines: `xz`, `ngram`, both or none.
    """
    from luthier_validate.compression import measure_bits_per_byte

    measure_bits_per_byte(subject, data, ctx, split=split, max_examples=max_examples, baselines=baselines)


@component(
    needs={"data": {"prompt-completion", "chat"}},
    check_inputs=_check_texts,
    metrics=("rouge1", "rouge2", "rougeL", "lead_rougeL"),
)
def rouge(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] = 200,
    max_new_tokens: Annotated[int, Ge(1)] = 64,
    use_stemmer: bool = True,
    words: Literal["ascii", "unicode"] = "ascii",
) -> None:
    """Compare greedy completions with the reference completions by ROUGE.

    Metrics: `rouge1`, `rouge2` and `rougeL` (F-measures from 0 to 1, means over examples), and
    `lead_rougeL`: what copying the document's first sentence would reach, a baseline that many
    summarizers do not beat. The table `generations` has the texts.

    Args:
        split: the examples to measure on.
        max_examples: measure on at most so many, chosen by a hash of their ids and spread over groups.
        max_new_tokens: completions are cut after so many tokens.
        use_stemmer: compare English word stems (Porter), as published figures mostly do.
        words: `ascii` compares words of a-z and 0-9, as the rouge-score package does; `unicode` takes
            the letters of every script, for other languages than English.
    """
    from luthier_validate.overlap import measure_rouge

    measure_rouge(
        subject,
        data,
        ctx,
        split=split,
        max_examples=max_examples,
        max_new_tokens=max_new_tokens,
        use_stemmer=use_stemmer,
        words=words,
    )


@component(needs={"data": {"prompt-completion", "chat"}}, check_inputs=_check_texts, metrics=("chrf", "sentence_chrf"))
def chrf(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] = 200,
    max_new_tokens: Annotated[int, Ge(1)] = 128,
    word_order: Annotated[int, Interval(ge=0, le=2)] = 0,
    lowercase: bool = False,
) -> None:
    """Compare greedy completions with the reference completions by chrF, character n-grams up to 6.

    Metrics, from 0 to 100 as sacrebleu gives them: `chrf`, the score of the corpus, which is what papers
    report; and `sentence_chrf`, the mean of the sentences' scores. The score of a corpus is no mean of its
    examples', so a gate with `confidence` must ask for `sentence_chrf`. The table `signatures` says how
    they were computed, `generations` has the texts.

    Args:
        split: the examples to measure on.
        max_examples: measure on at most so many, chosen by a hash of their ids and spread over groups.
        max_new_tokens: completions are cut after so many tokens.
        word_order: also compare n-grams of so many words; 2 is chrF++.
        lowercase: take capitals for small letters.
    """
    from luthier_validate.translation import chrf_measure, measure_translation

    measure = chrf_measure(word_order=word_order, lowercase=lowercase)
    measure_translation(
        subject, data, ctx, measure, split=split, max_examples=max_examples, max_new_tokens=max_new_tokens
    )


@component(needs={"data": {"prompt-completion", "chat"}}, check_inputs=_check_texts, metrics=("bleu", "sentence_bleu"))
def bleu(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] = 200,
    max_new_tokens: Annotated[int, Ge(1)] = 128,
    tokenizer: Tokenizer = "13a",
    lowercase: bool = False,
) -> None:
    """Compare greedy completions with the reference completions by BLEU, word n-grams up to 4.

    Metrics, from 0 to 100 as sacrebleu gives them: `bleu`, the score of the corpus, which is what papers
    report; and `sentence_bleu`, the mean of the sentences' scores. The score of a corpus is no mean of its
    examples', so a gate with `confidence` must ask for `sentence_bleu`. The table `signatures` says how
    they were computed, `generations` has the texts.

    Args:
        split: the examples to measure on.
        max_examples: measure on at most so many, chosen by a hash of their ids and spread over groups.
        max_new_tokens: completions are cut after so many tokens.
        tokenizer: sacrebleu's: `13a` for most languages, `intl` by Unicode's punctuation, `zh` for
            Chinese, `char` for what has no spaces, `none` for text that is split already.
        lowercase: take capitals for small letters.
    """
    from luthier_validate.translation import bleu_measure, measure_translation

    measure = bleu_measure(tokenizer=tokenizer, lowercase=lowercase)
    measure_translation(
        subject, data, ctx, measure, split=split, max_examples=max_examples, max_new_tokens=max_new_tokens
    )


@component(
    needs={"data": {"classification", "prompt-completion"}},
    check=_check_prompt,
    check_inputs=_check_labelled,
    metrics=("accuracy", "macro_f1", "majority_accuracy", "majority_macro_f1"),
)
def classification(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] = 200,
    prompt: str | None = None,
    per_token: bool = False,
) -> None:
    """Choose each example's most probable label, and count how often it is the right one.

    A classifier's head gives each of its labels a probability, and reads the text as it is. Of another model, every
    label of the data is scored as the completion of every prompt; examples that have prompts already are asked by
    those, and their completions are the labels. Metrics: `accuracy`; `macro_f1`, the mean F1
    of the labels that are right or chosen anywhere; and `majority_accuracy` and `majority_macro_f1`: what
    always choosing the training split's commonest label would reach. A macro average is no mean of its
    examples, so a gate with `confidence` must ask for `accuracy`. Tables: `classes`, `confusion`,
    `generations`.

    Args:
        split: the examples to measure on.
        max_examples: measure on at most so many, chosen by a hash of their ids and spread over groups.
        prompt: for examples of text and label: the prompt, with {text} and, if wanted, {labels}. By
            default it asks to label the text with one of the labels. A classifier needs none.
        per_token: compare the mean log-probability of a label's tokens, not their sum, which favours
            short labels.
    """
    from luthier_validate.labelling import measure_classification

    measure_classification(
        subject, data, ctx, split=split, max_examples=max_examples, prompt=prompt, per_token=per_token
    )


@component(
    needs={"data": {"prompt-completion", "chat", "language-modelling"}},
    check_inputs=_check_scored,
    metrics=("mean_kl", "top1_agreement", "perplexity_ratio"),
)
def parity(
    subject: Generator,
    reference: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] = 40,
) -> None:
    """Measure how far an exported or quantized model is from its reference, token by token.

    Both read the same held-out text (teacher forcing). Metrics: `mean_kl`, the mean over tokens of the
    Kullback-Leibler divergence KL(reference || subject) in nats; `top1_agreement`, the share of tokens
    where both find the same token most probable; `perplexity_ratio`, the subject's perplexity over the
    reference's. The table `parity` has the single examples. Plain text is read as far as the model's context goes.

    Args:
        split: the examples to measure on.
        max_examples: measure on at most so many, chosen by a hash of their ids and spread over groups.
    """
    from luthier_validate.divergence import measure_parity

    measure_parity(subject, reference, data, ctx, split=split, max_examples=max_examples)


@hookimpl
def luthier_validators() -> list[Callable[..., Any]]:
    """Give the validators."""
    return [perplexity, bits_per_byte, rouge, chrf, bleu, classification, parity]
