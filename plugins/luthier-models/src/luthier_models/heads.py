"""Classification heads: which models have one, of what it consists, and how its labels are called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

CLASSIFIER = "sequence-classifier"
"""The form of models that choose one of their labels for a text."""

_CLASS = "ForSequenceClassification"
_ENCODER = r"ForMaskedLM$|(?<!LMHead)Model$"


def names_classifier(architectures: object) -> bool:
    """Whether the classes that a configuration names (`architectures`) are those of a classifier."""
    return isinstance(architectures, list) and any(str(name).endswith(_CLASS) for name in architectures)


def names_encoder(architectures: object) -> bool:
    """Whether the classes that a configuration names are those of an encoder, alone or trained on masked tokens."""
    return isinstance(architectures, list) and any(re.search(_ENCODER, str(name)) for name in architectures)


def is_classifier(model: PreTrainedModel) -> bool:
    """Whether a loaded model is a classifier of texts."""
    return type(model).__name__.endswith(_CLASS)


def head_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """What a classifier has besides its body, by name in the order of its making; nothing of another model."""
    if not is_classifier(model):
        return {}
    return {name: child for name, child in model.named_children() if child is not model.base_model}


def output_layer(model: PreTrainedModel) -> nn.Module | None:
    """What makes logits of a decoder's hidden states: of tokens, or of labels; None if there is no such layer."""
    anyone = cast("Any", model)
    layer: nn.Module | None = getattr(anyone, "score", None) if is_classifier(model) else anyone.get_output_embeddings()
    return layer


def read_labels(directory: Path) -> list[str]:
    """The labels of the classifier in a directory, in the order of its logits; none of another model."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return []  # Loading the model explains what is wrong with it; an exported one may have no configuration.
    if not names_classifier(config.architectures):
        return []
    return [config.id2label[number] for number in sorted(config.id2label)]
