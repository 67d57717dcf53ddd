"""A new model with a tokenizer of its own: sizes from a budget, weights from the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from luthier import LuthierError
from luthier_models.corpus import split_texts
from luthier_models.families.design import TRAITS
from luthier_models.families.sizes import parameters
from luthier_models.families.table import FAMILIES
from luthier_models.loading import AUTO_CLASSES
from luthier_models.memory import available_bytes
from luthier_models.normalise import save_model
from luthier_models.vocabularies import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from luthier import Context, Dataset
    from luthier_models.families.design import Design
    from luthier_models.families.sizes import Shape
    from luthier_models.families.table import Family
    from luthier_models.options import Vocabulary


def write_fresh(
    data: Dataset, ctx: Context, *, family: str, budget: int, design: Design, vocabulary: Vocabulary
) -> None:
    """Train the tokenizer on the training split, choose the sizes, and write the untrained model to `ctx.output`.

    Raises:
        InputError: if the budget is too small for the tokenizer, or there is nothing to train that on.
    """
    write_untrained(
        data, ctx, FAMILIES[family], form=TRAITS[family].form, budget=budget, design=design, vocabulary=vocabulary
    )


def write_untrained(
    data: Dataset, ctx: Context, family: Family, *, form: str, budget: int, design: Any, vocabulary: Vocabulary
) -> None:
    """As `write_fresh`, of any family, with a design of its own kind; `form` is that of its models.

    Raises:
        InputError: as `write_fresh` does.
        LuthierError: if there is not enough memory for the weights.
    """
    tokenizer = train_tokenizer(split_texts(data, "train"), vocabulary, closes_texts=form != "causal-lm")
    shape = family.shape(budget, len(tokenizer), design)
    record_shape(shape, budget, ctx)
    check_memory(parameters(shape))
    config = family.configuration(shape, design, tokenizer)
    save_model(initialised(config, form, ctx.seed), tokenizer, ctx.output)


def check_memory(parameters: int) -> None:
    """Refuse a model whose weights would not fit into memory; made all the same, it would take the machine along.

    Raises:
        LuthierError: with both sizes. It is no `InputError`, since what is free changes.
    """
    need, free = 4 * parameters, available_bytes(torch.device("cpu"))
    if need > free:
        raise LuthierError(
            f"a model of {parameters:,} parameters needs {need / 1e9:,.2f} GB of memory, and {free / 1e9:,.2f} GB are "
            "free",
            "Lower `parameters`, `layers` or `width`. Training in full takes four times as much and more.",
        )


def initialised(config: PreTrainedConfig, form: str, seed: int) -> PreTrainedModel:
    """A model of this configuration whose weights come from the seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AUTO_CLASSES[form].from_config(config, dtype=torch.float32)
    return model


def record_shape(shape: Shape, budget: int, ctx: Context) -> None:
    """The arithmetic, for the log and the report."""
    blocks = shape.blocks()
    ctx.metric("parameters", parameters(shape))
    ctx.metric("vocabulary", shape.vocabulary)
    ctx.table("parameters", pl.DataFrame({"block": list(blocks), "parameters": list(blocks.values())}))
    arithmetic = " + ".join(f"{count:,} {name}" for name, count in blocks.items() if count)
    told = f"{arithmetic} = {parameters(shape):,} parameters, of {budget:,} at most"
    ctx.log.info("%s: %s", shape.describe(), told)
