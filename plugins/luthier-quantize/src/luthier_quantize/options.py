"""What the quantizers that calibrate share: how much data they look at, and the integers that they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from luthier import InputError, settings
from luthier_models.recurrent import CAUSAL_LMS

if TYPE_CHECKING:
    from luthier import Known

UNLAYERED = {*CAUSAL_LMS.values(), "OPTForCausalLM"}
"""Decoders that are more than an embedding, layers one after the other, and a head."""


@settings
@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How much data is looked at.

    Attributes:
        calibration_tokens: how much of the split `train` is looked at; a fourth as much of `valid` is measured on.
    """

    calibration_tokens: Annotated[int, Ge(512)] = 32_768


@settings
@dataclass(frozen=True, kw_only=True)
class FourBits(Calibration):
    """The form of the integers, one for all matrices, besides how much data is looked at.

    Attributes:
        block_size: so many weights of a row share one scale: blocks of 32 take 5.1 bits a weight.
        head: of the head and the embedding that it may be tied to: `int8` in blocks of 64, or `int4` in blocks of 32;
            `awq` too chooses them as `gptq` does.
    """

    block_size: Literal[16, 32, 64, 128] = 32
    head: Literal["int8", "int4"] = "int8"


def check_layers(_configuration: Mapping[str, Any], *, model: Known, **_others: Known) -> None:
    """Refuse what calibration cannot go through layer by layer, where it is known what the model will be.

    Raises:
        InputError: naming what quantizes it.
    """
    architecture = model.traits.get("architecture")
    if architecture in UNLAYERED:
        raise without_layers(architecture, by_genai=False)


def without_layers(architecture: str, *, by_genai: bool) -> InputError:
    """The error for a model whose layers cannot be run one by one.

    Args:
        architecture: as `config.json` names it.
        by_genai: whether `export: genai` knows it.
    """
    ways = "`export: genai`, then `quantize: int8` or `int4`" if by_genai else "`export: dynamo`, then `dynamic-int8`"
    return InputError(
        f"the layers of {architecture} cannot be run one by one, which calibration needs",
        f"Quantize without data: {ways}.",
    )
