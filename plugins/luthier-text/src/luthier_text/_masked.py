"""The cleaners `pii` and `secrets`: their rules over a frame, and what is counted and shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import polars as pl

from luthier import Context
from luthier_text import _pii, _secrets
from luthier_text._masking import Mask, Masked, Rule, label, mask_frame
from luthier_text._template import Template
from luthier_text.cleaners import Pii, Secret


@dataclass(frozen=True)
class Settings:
    """What `pii` and `secrets` share; see `cleaners`."""

    columns: Sequence[str] | None
    kinds: Sequence[str]
    replacement: str


def masked_pii(
    frame: pl.DataFrame, ctx: Context, settings: Settings, regions: Sequence[str], *, public_only: bool
) -> pl.DataFrame:
    """The frame with what identifies people masked; see `cleaners.pii`."""
    rules = _pii.rules(settings.kinds, regions, public_only=public_only)
    done = _mask("pii", frame, settings, rules, get_args(Pii))
    _note(ctx, "pii", settings.kinds, done, "masked")
    return done.frame


def without_secrets(
    frame: pl.DataFrame, ctx: Context, settings: Settings, min_entropy: float, *, drop: bool
) -> pl.DataFrame:
    """The frame with its secrets masked, or without the rows that have some; see `cleaners.secrets`."""
    done = _mask("secrets", frame, settings, _secrets.rules(settings.kinds, min_entropy), get_args(Secret))
    _note(ctx, "secrets", settings.kinds, done, "dropped" if drop else "masked")
    return frame.filter(~done.changed) if drop else done.frame


def _mask(name: str, frame: pl.DataFrame, settings: Settings, rules: Sequence[Rule], kinds: Sequence[str]) -> Masked:
    mask = Mask(Template.parse(settings.replacement, "replacement"), kinds)
    return mask_frame(frame, settings.columns, rules, mask, f"{name}: columns")


def _note(ctx: Context, name: str, kinds: Sequence[str], done: Masked, outcome: str) -> None:
    # Every metric in every shard, so that the sums over shards are complete.
    ctx.table(name, done.found)
    ctx.metric(f"documents_{outcome}", int(done.changed.sum()))
    for kind in kinds:
        ctx.metric(f"matches_{label(kind).lower()}", done.found.filter(pl.col("kind") == kind).height)
