"""Quantizers: fewer bits a weight, for ONNX Runtime's CPU provider.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from luthier import InputError, component, hookimpl
from luthier_models.devices import check_device
from luthier_quantize.options import Calibration, FourBits, check_layers

if TYPE_CHECKING:
    from luthier import Context, Dataset, Known, Model, OnnxModel

CALIBRATING = {"prompt-completion", "chat", "language-modelling"}
"""The forms of examples that calibration reads."""

GRAPHS = {"decoder", "encoder-decoder"}
"""The forms of language models that `export: dynamo` and `optimum` write; `dynamo` writes classifiers too."""

CLASSIFIER = "sequence-classifier"


@component(needs={"onnx": {"genai"}})
def int8(
    onnx: OnnxModel,
    ctx: Context,
    *,
    block_size: Literal[16, 32, 64, 128, 256] = 64,
    head_block_size: Literal[16, 32, 64, 128, 256] = 32,
) -> None:
    """Keep the weights of an exported model in 8 bits, for a quarter of the size and nearly the same quality.

    Every matrix is rounded to nearest on a symmetric grid, one scale a block, the embedding too; where it is tied to
    the head, both read one matrix. Products round their inputs to 8 bits as they run, in blocks of the same size;
    where that is most of the loss, `smooth` before the export makes it smaller. No data is needed. In a process of
    its own the result is compared with what it was; a broken one is refused. Metrics: those of `dynamic-int8`.

    Args:
        block_size: so many weights of a row share one scale in float32: blocks of 64 take 8.5 bits a weight.
        head_block_size: of the head and the embedding, whose errors no later layer evens out: blocks of 32 take 9 bits.
    """
    from luthier_quantize.weights import Choice, quantize_weights

    quantize_weights(
        onnx.path, ctx, matrices=Choice("symmetric", 8, block_size), tables=Choice("symmetric", 8, head_block_size)
    )


@component(needs={"onnx": {"genai"}})
def int4(
    onnx: OnnxModel,
    ctx: Context,
    *,
    method: Literal["rtn", "k-quant", "hqq"] = "k-quant",
    block_size: Literal[16, 32, 64, 128, 256] = 32,
    head: Literal["int8", "int4"] = "int8",
) -> None:
    """Keep the weights of an exported model in 4 bits, without data; small models lose much by it.

    Blocks have a scale in float32 and a zero point of 4 bits. Let a `parity` gate decide whether the result is good
    enough: with calibration data, `gptq`, `awq` and `mixed` lose less. Checks and metrics are those of `int8`.

    Args:
        method: how scale and zero point of a block are found: `rtn` from its smallest and largest value, `k-quant` by
            a search for the least squared error, `hqq` for the least error in a norm that outliers weigh less in.
        block_size: so many weights of a row share one scale: blocks of 32 take 5.1 bits a weight.
        head: of the head and the embedding, which are one matrix where the model ties them. `int8` takes blocks of
            64.
    """
    from luthier_quantize.weights import Choice, quantize_weights

    matrices = Choice(method, 4, block_size)
    quantize_weights(
        onnx.path, ctx, matrices=matrices, tables=Choice("symmetric", 8, 64) if head == "int8" else matrices
    )


@component(needs={"model": {"causal-lm"}, "data": CALIBRATING}, check_inputs=check_layers, check_device=check_device)
def gptq(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    integers: FourBits = FourBits(),
) -> None:
    """Keep the weights of a model in 4 bits, chosen on calibration data so that its outputs change least (GPTQ).

    Layer by layer and column by column, what the rounding of one column does to a product's output is undone by the
    columns that are left (arXiv:2210.17323); a token counts by how much the predictions depend on it (as in
    arXiv:2505.07004). Blocks have a scale and a zero point, found by the search of `k-quant`. It runs before the
    export: the model keeps its form, with the weights that its integers stand for, and `export: genai` packs exactly
    these integers. `mean_kl` and `top1_agreement` tell how far the model is from what it was, on the split `valid`,
    and `megabytes` what an export takes.
    """
    from luthier_quantize.calibrated import quantize_by_gptq

    quantize_by_gptq(model, data, ctx, integers)


@component(needs={"model": {"causal-lm"}, "data": CALIBRATING}, check_inputs=check_layers, check_device=check_device)
def awq(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    integers: FourBits = FourBits(),
) -> None:
    """Keep the weights of a model in 4 bits, with the columns that see large inputs scaled up for it (AWQ).

    The scales are a power of the inputs' magnitudes, searched on calibration data for each group of products of one
    input (arXiv:2306.00978), and folded into the norm or the product that the inputs come from, so that the model in
    floating point stays what it is; where there is no such module, nothing is scaled. Then each block is clipped
    where that changes outputs less, and rounded to nearest. The result is kept and exported as that of `gptq`, with
    the same metrics.
    """
    from luthier_quantize.calibrated import quantize_by_awq

    quantize_by_awq(model, data, ctx, integers)


def prepares(**_: object) -> dict[str, Any]:
    """That a model has the size that it had, and loses less by the quantizers that come after."""
    return {"prepares": True}


@component(
    needs={"model": {"causal-lm"}, "data": CALIBRATING},
    check_inputs=check_layers,
    check_device=check_device,
    traits=prepares,
)
def smooth(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    strength: Annotated[float, Interval(ge=0, le=1)] = 0.5,
    calibration_tokens: Annotated[int, Ge(512)] = 8192,
) -> None:
    """Make a model's inputs of products even, so that rounding them loses less; it computes the same (SmoothQuant).

    A few columns of what products read are many times larger than the others, and a grid for 8 bits that reaches them
    is coarse for the rest. Such columns are divided, and those of the weights multiplied, by
    `input ** strength / weight ** (1 - strength)` (arXiv:2211.10438), with the root mean square of the input on
    calibration data, and the weights' largest values. The division is folded into the norm or the product that the
    inputs come from; where there is none, nothing is divided. In floating point the model stays what it is, which
    `mean_kl` shows; put `mixed`, or the export and `int8` or `int4`, behind it. The table `smooth` has, for the
    products of each input, how far its largest column is above the median one, before and after.

    Args:
        strength: how much of the inputs' unevenness goes into the weights: nothing with 0, all with 1.
        calibration_tokens: how much of the split `train` is looked at; a fourth as much of `valid` is checked on.
    """
    from luthier_quantize.smoothing import smooth_model

    smooth_model(model, data, ctx, strength=strength, tokens=calibration_tokens)


def check_budget(*, max_kl: float | None, max_megabytes: float | None, **_: object) -> None:
    """Refuse a budget that is none, or two; takes the whole configuration of `mixed`.

    Raises:
        InputError: saying what to set.
    """
    if (max_kl is None) == (max_megabytes is None):
        raise InputError(
            "`mixed` needs one budget: `max_kl` or `max_megabytes`",
            "Set `max_kl: 0.05` for the smallest model within a loss, or `max_megabytes: 110` for the best one within "
            "a size.",
        )


@component(
    needs={"model": {"causal-lm"}, "data": CALIBRATING},
    check=check_budget,
    check_inputs=check_layers,
    check_device=check_device,
)
def mixed(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    max_kl: Annotated[float, Gt(0)] | None = None,
    max_megabytes: Annotated[float, Gt(0)] | None = None,
    calibration: Calibration = Calibration(),
) -> None:
    """Choose 4 or 8 bits for each matrix by what it costs in KL, within a size or a loss, and quantize as `gptq` does.

    For every group of products of one input, and for the head, the KL that each option leads to is predicted from
    calibration data: from the option's rounding errors, the inputs of the products, and the Fisher information of
    their outputs. The options are 4 bits in blocks of 64 or 32 (4.6 and 5.1 bits a weight), and 8 bits in blocks of 64
    (8.5). Bits go to where a byte saves most. With `max_kl` the choice is set right by what is measured, in at most
    three rounds; the smallest one that was measured to keep to it is taken, and where none does, the last, with a
    warning. What was chosen, and what each option would have cost, is in the
    table `mixed`; `predicted_kl` stands beside the measured `mean_kl` of the split `valid`.

    Args:
        max_kl: in nats a token, on the split `valid`: the smallest model that keeps to it.
        max_megabytes: of the export, the whole directory: the best model that keeps to it.
    """
    from luthier_quantize.sensitivity import Budget, quantize_mixed

    size = None if max_megabytes is None else int(max_megabytes * 1e6)
    quantize_mixed(model, data, ctx, budget=Budget(max_kl, size), tokens=calibration.calibration_tokens)


@component(needs={"onnx": GRAPHS | {CLASSIFIER}})
def dynamic_int8(onnx: OnnxModel, ctx: Context) -> None:
    """Keep a model that `export: dynamo` wrote in 8 bits, and compute its products in 8 bits; no data is needed.

    Every product with a weight matrix rounds its inputs to 8 bits, in a range that it finds as it runs, and
    multiplies integers; each output channel has a scale. Embeddings are looked up as integers; one that is tied to
    the head is kept once. GRU and LSTM layers become a product of all tokens and a loop over them, both in 8 bits.
    Products of attention scores, normalisation and sums stay in float32. The integers are right on processors without
    VNNI too. In a process of its own the result is compared with what it was; a broken one is refused. Metrics:
    `mean_kl`, `logit_error`, `top1_agreement`, `greedy_agreement`, `megabytes`.
    """
    from luthier_quantize.integer_graphs import quantize_dynamically

    quantize_dynamically(onnx, ctx)


def check_pairs(_configuration: Mapping[str, Any], *, onnx: Known, data: Known) -> None:
    """Refuse texts without prompts for an encoder-decoder, which reads none.

    Raises:
        InputError: saying what it reads.
    """
    if onnx.form == "encoder-decoder" and data.form == "language-modelling":
        raise InputError(
            "an encoder-decoder reads pairs of prompts and completions, and the data is of texts without prompts",
            "Calibrate it on pairs (`format: prompt-completion`), or use `quantize: dynamic-int8`, which needs none.",
        )


@component(needs={"onnx": GRAPHS, "data": CALIBRATING}, check_inputs=check_pairs)
def static_int8(
    onnx: OnnxModel, data: Dataset, ctx: Context, *, calibration_tokens: Annotated[int, Ge(512)] = 8192
) -> None:
    """As `dynamic-int8`, but the inputs' ranges are found beforehand, on calibration data, and written into the graph.

    The graph has QuantizeLinear and DequantizeLinear around its products (QDQ), which accelerators read too. Ranges
    are from the smallest to the largest value that was seen, one for each input, so that a large value in one
    channel costs the others precision: where `dynamic-int8` is good enough, it is the safer choice. Metrics and
    checks are those of `dynamic-int8`.

    Args:
        calibration_tokens: how much of the split `train` is looked at.
    """
    from luthier_quantize.integer_graphs import quantize_statically

    quantize_statically(onnx, data, ctx, tokens=calibration_tokens)


@component(needs={"onnx": GRAPHS | {CLASSIFIER}})
def float16(onnx: OnnxModel, ctx: Context) -> None:
    """Keep the matrices of a model that `export: dynamo` wrote in 16 bits: half the size, and hardly a loss.

    They are turned to float32 when the model is loaded, and everything is computed in that: few operators of ONNX
    Runtime's CPU provider know float16. So it is neither faster nor smaller in memory; `dynamic-int8` is. In a
    process of its own the result is compared with what it was. Metrics: those of `dynamic-int8`.
    """
    from luthier_quantize.halves import halve

    halve(onnx, ctx)


@hookimpl
def luthier_quantizers() -> list[Callable[..., Any]]:
    """Give the quantizers."""
    return [int8, int4, gptq, awq, mixed, smooth, dynamic_int8, static_int8, float16]
