"""Quantizers of models on calibration data: layer by layer, with integers for the exporter beside the new weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from luthier_models.grids import Quantized, k_quant, quantize, symmetric
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_onnx.packed import BLOCK_SIZES, PackedMatrix, write_packed
from luthier_quantize.activation_aware import awq
from luthier_quantize.calibration import Divergence, diverged, read_windows, refuse_integers
from luthier_quantize.fisher import Importance, importances
from luthier_quantize.layerwise import Group, LayerByLayer
from luthier_quantize.second_order import gptq
from luthier_quantize.weights import as_packed
from luthier_tune.task import copy_companions

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from luthier import Context, Dataset, Model
    from luthier_quantize.options import FourBits

_SCALE_BITS = 32
# The nodes and names of a graph with packed matrices, by measurement no more: the tiny model of the tests has 21 kB
# with its two layers, SmolLM2-135M 255 kB with its thirty.
_GRAPH_BYTES, _LAYER_GRAPH_BYTES = 20_000, 8_000
_MATRIX = 2


@dataclass(frozen=True, order=True)
class Option:
    """How a matrix may be kept: `bits` of an integer, in blocks of `block_size` columns."""

    bits: int
    block_size: int

    @property
    def bits_per_weight(self) -> float:
        """With the scale of a block, and with 4 bits its zero point."""
        return self.bits + (_SCALE_BITS + (4 if self.bits == 4 else 0)) / self.block_size

    def __str__(self) -> str:
        return f"int{self.bits}/{self.block_size}"


HEADS = {"int8": Option(8, 64), "int4": Option(4, 32)}


RoundLayer = Callable[[LayerByLayer, list[Group]], Iterable[tuple[str, Quantized]]]
"""Gives the integers of the next layer's products, by the names of their weights, one after the other."""


class Calibrated:
    """A model on its way to integers.

    Args:
        model: the directory of a decoder.
        data: examples, with a split `train` to calibrate on and `valid` to measure on.
        ctx: the device, the seed, progress.
        tokens: of calibration data; a fourth as many are measured on.

    Raises:
        InputError: if the model is quantized already, or there is too little text.
    """

    def __init__(self, model: Model, data: Dataset, ctx: Context, tokens: int) -> None:
        refuse_integers(model.path)
        self._source = model.path
        self._ctx = ctx
        encoder = PromptEncoder.from_directory(model.path)
        self.windows = read_windows(data, "train", encoder, tokens=tokens, seed=ctx.seed)
        self._held_out = read_windows(data, "valid", encoder, tokens=max(tokens // 4, 512), seed=ctx.seed)
        self.model = self._load()
        self.packed: dict[str, PackedMatrix] = {}

    def importances(self) -> dict[str, Importance]:
        """Of the outputs of every product, by the names of their weights, and of the embedding, as `embedding`."""
        modules: dict[str, nn.Module] = {
            f"{name}.weight": module
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        embedding = cast("Any", self.model).get_input_embeddings()
        total = len(self.windows)
        return importances(
            self.model,
            self.windows,
            modules | {"embedding": embedding},
            self._ctx.seed,
            lambda done: self._ctx.progress(done, total),
        )

    def restore(self) -> None:
        """Take back what was quantized."""
        self.model = self._load()
        self.packed = {}

    def quantize(self, round_layer: RoundLayer, head: Option, importance: Mapping[str, Importance]) -> None:
        """Quantize every product, layer by layer, then the embedding and the head.

        Args:
            round_layer: gives the integers of the next layer's products.
            head: the option for the head, and the embedding that it is tied to.
            importance: of the tokens for each weight, where it was measured.
        """
        layers = LayerByLayer(self.model, self.windows)
        weights = {name: each.tokens for name, each in importance.items()}
        for number in range(len(layers)):
            self._ctx.progress(number, len(layers))
            linears = layers.linears
            for name, quantized in round_layer(layers, layers.groups(weights)):
                self._keep(name, linears[name].weight, quantized)
            layers.advance()
        tables = tables_of(self.model)
        moment = head_moment(layers, weights.get(tables.head_name)) if head.bits < 8 else None
        for name, weight in tables.weights.items():
            fits = fitting(head if name == tables.head_weight else HEADS["int8"], weight)
            if fits is not None:
                self._keep(name, weight, rounded_table(weight, moment, fits))

    def measure(self) -> Divergence:
        """How far the model is from what it was, on the split `valid`."""
        return diverged(self.model, self._load(), self._held_out)

    def megabytes(self) -> float:
        """Of an export: the packed matrices, and what they leave."""
        return (self.fixed_bytes + sum(each.size for each in self.packed.values())) / 1e6

    @property
    def fixed_bytes(self) -> int:
        """Of an export whatever its matrices take.

        That is other weights and rotary tables in float32, the tokenizer, and the graph's nodes by estimate.
        """
        others = sum(4 * each.numel() for each in self.model.parameters() if each.ndim != _MATRIX)
        layers: int = cast("Any", self.model.config).get_text_config().num_hidden_layers
        graph = _GRAPH_BYTES + _LAYER_GRAPH_BYTES * layers
        return others + rotary_bytes(self.model) + companion_bytes(self._source) + graph

    def write(self, divergence: Divergence) -> None:
        """Write the model with its integers to the step's output, and what was measured to its metrics."""
        self.model.save_pretrained(self._ctx.output)
        copy_companions(self._source, self._ctx.output)
        write_packed(self._ctx.output, self.packed)
        self._ctx.metric("megabytes", self.megabytes())
        self._ctx.metric("mean_kl", divergence.mean_kl)
        self._ctx.metric("top1_agreement", divergence.top1)
        self._ctx.metric("tokens_measured", divergence.tokens)

    def _keep(self, name: str, weight: Tensor, quantized: Quantized) -> None:
        matrix = as_packed(quantized)
        self.packed[name] = matrix
        with torch.no_grad():
            # Of the integers as they are kept, so that the exporter finds them again by these very values.
            weight.copy_(torch.from_numpy(matrix.values))

    def _load(self) -> PreTrainedModel:
        model = load_causal_lm(self._source, device=self._ctx.device, dtype="float32")
        model.requires_grad_(requires_grad=False)
        return model


@dataclass(frozen=True)
class Tables:
    """The embedding and the head: the weights by name, one where they are tied.

    Attributes:
        weights: by their names among the model's parameters.
        head_weight: the name of the one that the head reads.
        head_name: the name that the head's module gives it.
    """

    weights: Mapping[str, Tensor]
    head_weight: str
    head_name: str

    @property
    def is_tied(self) -> bool:
        """Whether the head reads the embedding's weight."""
        return len(self.weights) == 1


def tables_of(model: PreTrainedModel) -> Tables:
    """The embedding and the head of a model."""
    anyone = cast("Any", model)
    embedding, head = anyone.get_input_embeddings().weight, anyone.get_output_embeddings()
    names = {id(each): name for name, each in model.named_parameters()}
    weights = {names[id(each)]: each for each in (embedding, head.weight)}
    head_name = next(name for name, module in model.named_modules() if module is head)
    return Tables(weights, names[id(head.weight)], f"{head_name}.weight")


def head_moment(layers: LayerByLayer, importance: Tensor | None) -> Tensor:
    """The mean outer product of what the head reads, once all layers have run."""
    states = torch.cat(list(layers.final_states()))
    rows = states.flatten(0, -2).float()
    if importance is not None:
        rows = rows * importance.flatten().to(rows.device).sqrt()[:, None]
    return rows.T @ rows / len(rows)


def rounded(weight: Tensor, second_moment: Tensor, option: Option) -> Quantized:
    """A product's matrix in integers, by GPTQ."""
    find = symmetric if option.bits == 8 else k_quant
    return gptq(weight, second_moment, find, option.bits, option.block_size)


def rounded_table(weight: Tensor, second_moment: Tensor | None, option: Option) -> Quantized:
    """An embedding or a head in integers: by GPTQ in 4 bits, where it is a head's; to nearest in 8.

    What GPTQ does for the head's outputs is done to the rows that are looked up, too. In 8 bits there is nothing in it.
    """
    if option.bits == 8 or second_moment is None:
        return quantize(weight, symmetric if option.bits == 8 else k_quant, option.bits, option.block_size)
    return rounded(weight, second_moment, option)


def by_gptq(choose: Callable[[str], Option]) -> RoundLayer:
    """GPTQ, with the option that is chosen for the group of products that has a name."""

    def round_layer(_layers: LayerByLayer, groups: list[Group]) -> Iterator[tuple[str, Quantized]]:
        for group in groups:
            for name, module in group.weights.items():
                yield name, rounded(module.weight, group.second_moment, choose(group.name))

    return round_layer


def fitting(option: Option, table: Tensor) -> Option | None:
    """The option with the largest blocks, at most its own, that divide the width of a table that is looked up."""
    sizes = [size for size in BLOCK_SIZES if size <= option.block_size and table.shape[1] % size == 0]
    return Option(option.bits, max(sizes)) if sizes else None


def rotary_bytes(model: PreTrainedModel) -> int:
    """The bytes of the tables of sines and cosines that an export has for each position, if the model turns by any."""
    config: Any = model.config
    if not getattr(config, "rope_parameters", None):
        return 0
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(4 * config.max_position_embeddings * width)


def companion_bytes(directory: Path) -> int:
    """The bytes of a model's tokenizer and settings."""
    files = (path for path in directory.iterdir() if path.is_file() and path.suffix not in (".safetensors", ".bin"))
    return sum(path.stat().st_size for path in files)


def quantize_by_gptq(model: Model, data: Dataset, ctx: Context, integers: FourBits) -> None:
    """The component `gptq`."""
    calibrated = Calibrated(model, data, ctx, integers.calibration_tokens)
    option = Option(4, integers.block_size)
    calibrated.quantize(by_gptq(lambda _group: option), HEADS[integers.head], calibrated.importances())
    calibrated.write(calibrated.measure())


def quantize_by_awq(model: Model, data: Dataset, ctx: Context, integers: FourBits) -> None:
    """The component `awq`."""
    calibrated = Calibrated(model, data, ctx, integers.calibration_tokens)
    importance = calibrated.importances()

    def round_layer(layers: LayerByLayer, groups: list[Group]) -> Iterator[tuple[str, Quantized]]:
        return awq(layers, groups, importance, bits=4, block_size=integers.block_size, seed=ctx.seed)

    calibrated.quantize(round_layer, HEADS[integers.head], importance)
    calibrated.write(calibrated.measure())
