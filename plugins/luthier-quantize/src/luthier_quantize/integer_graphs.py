"""`dynamic-int8` and `static-int8`: weights and inputs of a graph's products in 8 bits, by onnxruntime's tools.

Weights keep to 7 of their 8 bits (`rows.SAFE`), inputs are unsigned: that is right on every processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from luthier import InputError
from luthier_onnx.binding import fold_constants
from luthier_onnx.generator import GraphGenerator
from luthier_quantize.exported import check_in_float32, load_graph, rewrite_graphs, save_graph
from luthier_quantize.lookups import quantize_lookups, tie
from luthier_quantize.recurrences import unroll_recurrences

if TYPE_CHECKING:
    from luthier import Context, Dataset, OnnxModel

Quantizer = Callable[[Path, Path, list[str]], None]
"""One of onnxruntime's tools: the graph in one file, its products with weights, to another file."""

FEWEST_TOKENS = 512
"""Of calibration data: with less of it, ranges are those of a few sentences."""

_PRODUCTS = ("MatMul", "Gemm")
_COMMON: dict[str, Any] = {
    "op_types_to_quantize": _PRODUCTS,
    "per_channel": True,
    "reduce_range": True,
    "weight_type": QuantType.QInt8,
    "use_external_data_format": True,
}


def quantize_dynamically(exported: OnnxModel, ctx: Context) -> None:
    """The component `dynamic-int8`.

    Raises:
        InputError: if a graph may not be loaded, or has nothing in float32.
        PluginError: if the result does not run, or is broken.
    """

    def quantize(source: Path, target: Path, _products: list[str]) -> None:
        # By itself it takes those with weights, and renames some.
        quantize_dynamic(source, target, **_COMMON)

    check_in_float32(exported.path)
    _quantize_graphs(exported, ctx, quantize)


def quantize_statically(exported: OnnxModel, data: Dataset, ctx: Context, *, tokens: int) -> None:
    """The component `static-int8`.

    Raises:
        InputError: as `quantize_dynamically`, or if the split `train` has too few tokens.
        PluginError: if the result does not run, or is broken.
    """
    # It loads PyTorch, which nothing else here needs.
    from luthier_quantize.calibration import read_pairs

    check_in_float32(exported.path)
    generator = GraphGenerator(exported.path)
    pairs = read_pairs(data, "train", generator.encoder, tokens=tokens, seed=ctx.seed)
    found = sum(len(given) + len(targets) for given, targets in pairs)
    if found < FEWEST_TOKENS:
        raise InputError(
            f"the split 'train' has {found} tokens that fit into the model, too few to find ranges from: "
            f"{FEWEST_TOKENS} are the least",
            "Give it more data, or use `quantize: dynamic-int8`, which needs none.",
        )
    windows = [([*given], [*targets]) for given, targets in pairs]

    def quantize(source: Path, target: Path, products: list[str]) -> None:
        quantize_static(
            source,
            target,
            _Feeds(generator.feeds(windows, target.name)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            # By name: `MatMulConstBOnly` is ignored here, and what attention multiplies would be rounded.
            nodes_to_quantize=products,
            # Results stay as exact as they are.
            extra_options={"OpTypesToExcludeOutputQuantization": _PRODUCTS},
            **_COMMON,
        )

    _quantize_graphs(exported, ctx, quantize)


class _Feeds(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    def __init__(self, feeds: Iterator[dict[str, Any]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _quantize_graphs(exported: OnnxModel, ctx: Context, quantize: Quantizer) -> None:
    def rewrite(path: Path, target: Path, scratch: Path) -> None:
        folded, prepared, quantized = (scratch / name / path.name for name in ("folded", "prepared", "quantized"))
        for each in (folded, prepared, quantized):
            each.parent.mkdir()
        fold_constants(path, folded)
        model = load_graph(folded)
        unroll_recurrences(model.graph)
        tables = quantize_lookups(model.graph)
        products = [str(node.name) for node in model.graph if node.op_type in _PRODUCTS and _has_weights(node)]
        if not products:
            raise InputError(
                f"{path} has no product with a matrix of weights", "Leave it as it is, or use `quantize: float16`."
            )
        # So the tools know that what they recommend was done.
        model.metadata_props["onnx.quant.pre_process"] = "onnxruntime.quant"
        save_graph(model, prepared)
        quantize(prepared, quantized, products)
        model = load_graph(quantized)
        for table in tables:
            if table.head:
                tie(model.graph, table)
        model.metadata_props.clear()
        save_graph(model, target)

    rewrite_graphs(exported, ctx, rewrite)


def _has_weights(node: ir.Node) -> bool:
    weights = node.inputs[1]
    return weights is not None and weights.is_initializer()
