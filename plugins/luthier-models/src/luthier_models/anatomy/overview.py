"""All that `luthier models show` says of a model, as plain data, and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luthier_models.anatomy import costs
from luthier_models.anatomy.machine import Speed
from luthier_models.anatomy.parts import Anatomy, Side, dissect
from luthier_models.anatomy.tensors import read_config, read_tensors
from luthier_models.heads import CLASSIFIER

RANK = 16


@dataclass(frozen=True)
class Question:
    """What is asked for.

    Attributes:
        tokens: of the training or scoring whose time is predicted.
        context: tokens of a text.
        batch_tokens: tokens of one row of a batch, whose activations are kept.
    """

    tokens: int
    context: int
    batch_tokens: int


def overview(directory: Path, question: Question, speed: Speed, name: str = "") -> dict[str, Any]:
    """What a model directory holds and costs; `name` is what the user calls it.

    Raises:
        InputError: if it has no configuration or no safetensors.
    """
    config = read_config(directory)
    anatomy = dissect(config, read_tensors(directory))
    full = costs.tuning_memory(anatomy, batch_tokens=question.batch_tokens)
    lora = costs.tuning_memory(anatomy, batch_tokens=question.batch_tokens, rank=RANK)
    return {
        "model": name or str(directory),
        "model_type": config.get("model_type", ""),
        "kind": anatomy.kind,
        "labels": len(config.get("id2label") or ()),
        "parameters": anatomy.parameters,
        "blocks": dict(anatomy.blocks),
        "tied": anatomy.tied,
        "weight_bytes": anatomy.weight_bytes,
        "question": asdict(question),
        "memory": {
            "full": asdict(full) | {"total": full.total},
            f"lora_rank_{RANK}": asdict(lora) | {"total": lora.total},
            "inference": {
                "weights": costs.WEIGHT * anatomy.parameters,
                "cache": costs.cache_bytes(anatomy, question.context) if anatomy.writes else 0,
            },
        },
        "operations_per_token": {side.name: _operations(side, question.context) for side in anatomy.sides},
        "machine": asdict(speed),
        "seconds": _seconds(anatomy, question, speed),
        "rough": anatomy.rough,
    }


def _operations(side: Side, context: int) -> dict[str, int]:
    return {
        "forward": costs.forward_operations(side, context // 2),
        "full": costs.training_operations(side, context, frozen=False),
        "lora": costs.training_operations(side, context, frozen=True),
    }


def _seconds(anatomy: Anatomy, question: Question, speed: Speed) -> dict[str, float]:
    """The least that work on `tokens` can take; of an encoder-decoder, tokens that both sides read.

    `generating` is of models that write.
    """
    operations = [_operations(side, question.context) for side in anatomy.sides]
    scoring, full, lora = (
        question.tokens * sum(each[what] for each in operations) / speed.operations
        for what in ("forward", "full", "lora")
    )
    found = {"scoring": scoring, "full": full, "lora": lora}
    if not anatomy.writes:
        return found
    token = max(
        costs.decoding_bytes(anatomy, question.context) / speed.bandwidth,
        costs.forward_operations(anatomy.sides[-1], question.context) / speed.operations,
    )
    return found | {"generating": question.tokens * token}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """An overview in words and columns."""
    question, speed, seconds = found["question"], found["machine"], found["seconds"]
    tied = ", the embedding is also the output layer" if found["tied"] else ""
    if found["kind"] == CLASSIFIER:
        tied = f", {found['labels']} labels"
    yield f"{found['model']}: {found['model_type']}, {found['kind']}{tied}"
    yield ""
    yield "PARAMETERS"
    for block, count in found["blocks"].items():
        yield f"  {block:<24}{count:>15,}  {100 * count / found['parameters']:5.1f}%"
    yield f"  {'all':<24}{found['parameters']:>15,}  stored in {_bytes(found['weight_bytes'])}"
    yield ""
    yield f"MEMORY IN FLOAT32       {'weights':>10}{'gradients':>11}{'optimizer':>11}{'activations':>13}{'all':>10}"
    for label, key in (("tuning in full", "full"), (f"LoRA of rank {RANK}", f"lora_rank_{RANK}")):
        of = found["memory"][key]
        columns = ((10, "weights"), (11, "gradients"), (11, "optimizer"), (13, "activations"), (10, "total"))
        yield f"  {label:<22}" + "".join(f"{_bytes(of[name]):>{width}}" for width, name in columns)
    inference = found["memory"]["inference"]
    total = sum(inference.values())
    weights, cache = _bytes(inference["weights"]), _bytes(inference["cache"])
    yield f"  {'inference':<22}{weights:>10}{'':>22}{cache:>13}{_bytes(total):>10}"
    yield f"  Activations are an estimate, for {question['batch_tokens']:,} tokens at once; those of inference are what"
    yield f"  is kept of {question['context']:,} tokens."
    yield ""
    yield f"OPERATIONS A TOKEN, in texts of {question['context']:,} tokens"
    for side, each in found["operations_per_token"].items():
        counts = (f"{each[what] / 1e6:,.1f} M {label}" for what, label in _WORK)
        yield f"  {side:<24}" + ", ".join(counts)
    yield ""
    yield f"PREDICTED for {question['tokens']:,} tokens on this machine"
    for what, label in (
        ("scoring", "reading or scoring"),
        ("full", "tuning in full"),
        ("lora", f"LoRA of rank {RANK}"),
    ):
        yield f"  {label:<24}{_time(seconds[what]):>10}  {question['tokens'] / seconds[what]:,.0f} tokens/s"
    if "generating" in seconds:
        rate = question["tokens"] / seconds["generating"]
        yield f"  {'generating, one text':<24}{_time(seconds['generating']):>10}  {rate:,.0f} tokens/s"
    products, reads = f"{speed['operations'] / 1e9:,.0f} GFLOP/s", f"{speed['bandwidth'] / 1e9:,.1f} GB/s"
    yield f"  Predicted from {products} of matrix products and {reads} read from memory, both just measured with"
    yield "  numpy, for products of matrices alone, with a target at every token and nothing shared."
    if found["rough"]:
        yield f"  Rough: {found['rough']}."


_WORK = (("forward", "forward"), ("full", "training"), ("lora", "training adapters"))


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _time(seconds: float) -> str:
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 86_400:.1f} days"
