"""A new classification head on the body of a model that was trained for something else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import polars as pl
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from luthier import InputError
from luthier_models.heads import CLASSIFIER, head_modules
from luthier_models.loading import load_model
from luthier_models.normalise import save_model
from luthier_models.options import no_classifier
from luthier_models.prompts import load_tokenizer
from luthier_models.untrained import initialised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from luthier import Context, Dataset, Model


def write_head(model: Model, data: Dataset, ctx: Context) -> None:
    """Write the model's body with a new head for the data's labels to `ctx.output`.

    Raises:
        InputError: if the labels are too few, some are in no training example, or transformers has no classifier of
            the model's architecture.
    """
    labels = training_labels(data)
    tokenizer = load_tokenizer(model.path)
    classifier = with_new_head(load_model(model.path, model.form), tokenizer, labels, ctx.seed)
    parameters = sum(each.numel() for module in head_modules(classifier).values() for each in module.parameters())
    save_model(classifier, tokenizer, ctx.output)
    ctx.metric("labels", len(labels))
    ctx.metric("head_parameters", parameters)
    ctx.log.info("a new head of %s parameters for %d labels: %s", f"{parameters:,}", len(labels), ", ".join(labels))


def training_labels(data: Dataset) -> list[str]:
    """The labels of the training split, sorted.

    Raises:
        InputError: if they are fewer than two, or other splits have labels that it has not.
    """
    found = data.scan().select("split", "label").drop_nulls().unique().collect()
    labels = sorted(found.filter(pl.col("split") == "train")["label"].to_list())
    if len(labels) < 2:
        raise InputError(
            f"the split 'train' has {len(labels)} different labels, and a head takes two or more",
            "Look at the data that the `format` step gave, and how it was divided.",
        )
    unseen = sorted({*found["label"].to_list()} - {*labels})
    if unseen:
        raise InputError(
            f"no training example has the labels {', '.join(map(repr, unseen[:5]))}, which other splits have",
            "They cannot be learnt: give the `format` step a higher `min_class_size`, its `classes` or another `salt`.",
        )
    return labels


def with_new_head(
    trained: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], seed: int
) -> PreTrainedModel:
    """The body of a trained model with a new head, whose weights come from the seed.

    Raises:
        InputError: if transformers has no classifier of the architecture.
    """
    config: Any = copy.deepcopy(trained.config)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise no_classifier(config.model_type)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if config.pad_token_id is None:
        # Others who load the model in batches need one; it is masked, so that any token will do.
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    classifier = initialised(config, CLASSIFIER, seed)
    missing, unexpected = classifier.base_model.load_state_dict(trained.base_model.state_dict(), strict=False)
    # A pooler is part of the body by name, and only there where a head reads it: BERT's does, RoBERTa's does not.
    strange = [name for name in (*unexpected, *missing) if not name.startswith("pooler.")]
    assert not strange, f"the body of {type(trained).__name__} is not that of {type(classifier).__name__}: {strange}"
    anyone: Any = classifier
    ready: PreTrainedModel = anyone.to(trained.dtype)
    return ready
