"""What the quantizers that calibrate share: how much data they look at, and the integers that they choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from luthier import settings


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
