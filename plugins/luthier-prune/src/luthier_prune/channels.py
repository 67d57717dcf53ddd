"""Width: channels of the MLPs and groups of heads, by what they add to the hidden states."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from luthier import InputError
from luthier_prune.layouts import LAYOUTS, layout_of
from luthier_prune.matrices import matrix
from luthier_prune.rebuilding import count_parameters, rebuilt
from luthier_prune.watching import run, watching

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from luthier_models.batching import Batch, BatchedModel

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_OUTPUT = "o_proj"


class Width:
    """The width of a model's layers; a `luthier_prune.course.Cut`.

    A unit is `multiple_of` channels of every MLP, and its share of the groups of heads; or a group, where only heads
    are pruned.

    Args:
        model: the model.
        parts: `mlp`, `heads` or both.
        multiple_of: channels that stay are a multiple of this.

    Raises:
        InputError: if the family is not known, or its heads cannot be removed.
    """

    title = "width"

    def __init__(self, model: PreTrainedModel, parts: Sequence[str], multiple_of: int) -> None:
        self._model = model
        self._layout = layout_of(model)
        self._blocks = self._layout.blocks(model)
        self._by = multiple_of
        self._channels = matrix(self._blocks[0].get_submodule(self._layout.channels_out)).shape[1]
        config: Any = model.config
        self._groups = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        self._mlp, self._heads = "mlp" in parts, "heads" in parts
        if self._heads and not self._layout.attention:
            others = ", ".join(name for name, layout in LAYOUTS.items() if layout.attention)
            raise InputError(
                f"heads of a {config.model_type} model cannot be removed: their width follows from their number",
                f"Prune its MLPs (`parts: [mlp]`), or a model of these families: {others}.",
            )
        self.unit = "channel blocks" if self._mlp else "head groups"
        self.total = self._channels // self._by if self._mlp else self._groups
        self.removable = self.total - 1
        self._scores: dict[str, list[Tensor]] = {}

    def parameters(self, removed: int) -> int:
        """Without so many units, in all layers."""
        block = self._blocks[0]
        channels, groups = self._left(removed)
        gone = 0
        if self._mlp:
            per_channel = matrix(block.get_submodule(self._layout.channels_out)).shape[0]
            per_channel += sum(_row_size(block.get_submodule(name)) for name in self._layout.channels_in)
            gone += (self._channels - channels) * per_channel
        if self._heads:
            gone += (self._groups - groups) * self._group_size(block)
        return count_parameters(self._model) - len(self._blocks) * gone

    def rank(self, packed: BatchedModel, rows: Sequence[Batch]) -> None:
        """Measure the root mean square of what each channel, and each group of heads, adds, in every layer."""
        outputs: dict[str, list[nn.Module]] = {}
        if self._mlp:
            outputs["channels"] = [block.get_submodule(self._layout.channels_out) for block in self._blocks]
        if self._heads:
            outputs["groups"] = [block.get_submodule(f"{self._layout.attention}.{_OUTPUT}") for block in self._blocks]
        modules = [module for each in outputs.values() for module in each]
        squares = [torch.zeros((), dtype=torch.float64)] * len(modules)
        tokens = [0] * len(modules)

        def measure(number: int, inputs: tuple[Any, ...], _options: dict[str, Any], _output: Any) -> None:
            entered = inputs[0].flatten(0, -2).float()
            grouped = number >= len(outputs.get("channels", ()))
            added = _of_groups(entered, modules[number], self._groups) if grouped else _of_channels(entered)
            squares[number] = squares[number] + added.double().cpu()
            tokens[number] += len(entered)

        with watching(modules, measure):
            run(packed, rows)
        means = [(total / count).sqrt() for total, count in zip(squares, tokens, strict=True)]
        for name, of_it in outputs.items():
            self._scores[name], means = means[: len(of_it)], means[len(of_it) :]
        if self._mlp:
            # A channel adds its activation times its column.
            columns = [matrix(module).detach().float().norm(dim=0).double().cpu() for module in outputs["channels"]]
            self._scores["channels"] = [a * c for a, c in zip(self._scores["channels"], columns, strict=True)]

    def pruned(self, removed: int) -> PreTrainedModel:
        """The model with the channels and groups that add most in each layer."""
        channels, groups = self._left(removed)
        weights = self._model.state_dict()
        for number, block in enumerate(self._blocks):
            name = f"{self._layout.layers}.{number}"
            if self._mlp:
                kept = _largest(self._scores["channels"][number], channels)
                for part in self._layout.channels_in:
                    self._select(weights, f"{name}.{part}", kept, outputs=True)
                self._select(weights, f"{name}.{self._layout.channels_out}", kept, outputs=False)
            if self._heads:
                self._select_groups(weights, f"{name}.{self._layout.attention}", block, number, groups)
        return rebuilt(self._model, self._narrowed(channels, groups), weights)

    def table(self, removed: int) -> pl.DataFrame:
        """The share of the importance that each layer lost, by part."""
        left = dict(zip(("channels", "groups"), self._left(removed), strict=True))
        columns: dict[str, list[float]] = {"layer": list(range(len(self._blocks)))}
        for name, scores in self._scores.items():
            lost = [1 - float(each.topk(left[name]).values.sum() / each.sum()) for each in scores]
            columns[f"lost_{name}"] = lost
        return pl.DataFrame(columns)

    def _left(self, removed: int) -> tuple[int, int]:
        """Channels and groups of a layer that stay."""
        if not self._mlp:
            return self._channels, self._groups - removed
        channels = (self.total - removed) * self._by if removed else self._channels
        groups = self._groups - self._groups * removed // self.total if self._heads else self._groups
        return channels, groups

    def _group_size(self, block: nn.Module) -> int:
        """The parameters of a group of heads in one layer."""
        attention = block.get_submodule(self._layout.attention)
        rows = sum(p.numel() for name in _PROJECTIONS for p in attention.get_submodule(name).parameters())
        norms = sum(each.numel() for each in self._norms_across(attention).values())
        return (rows + matrix(attention.get_submodule(_OUTPUT)).numel() + norms) // self._groups

    def _norms_across(self, attention: nn.Module) -> Mapping[str, Tensor]:
        """Norms of all heads' queries and keys together, which OLMo 2 has; those of each head stay."""
        width = int(attention.head_dim)  # type: ignore[arg-type]
        found = {name: p for name, p in attention.named_parameters() if name in ("q_norm.weight", "k_norm.weight")}
        return {name: p for name, p in found.items() if p.numel() > width}

    def _select(self, weights: dict[str, Tensor], name: str, kept: Tensor, *, outputs: bool) -> None:
        """Keep some outputs (rows, and their biases) or some inputs (columns) of a matrix."""
        dimension = 0 if outputs != self._layout.inputs_first else 1
        weights[f"{name}.weight"] = weights[f"{name}.weight"].index_select(dimension, kept).contiguous()
        if outputs and f"{name}.bias" in weights:
            weights[f"{name}.bias"] = weights[f"{name}.bias"][kept]

    def _select_groups(self, weights: dict[str, Tensor], name: str, block: nn.Module, number: int, groups: int) -> None:
        kept = _largest(self._scores["groups"][number], groups)

        def rows(tensor: Tensor) -> Tensor:
            """The indices of the kept groups in a dimension that all groups share."""
            return torch.arange(len(tensor)).view(self._groups, -1)[kept].flatten()

        for part in _PROJECTIONS:
            self._select(weights, f"{name}.{part}", rows(weights[f"{name}.{part}.weight"]), outputs=True)
        output = weights[f"{name}.{_OUTPUT}.weight"]
        self._select(weights, f"{name}.{_OUTPUT}", rows(output.T), outputs=False)
        for part, norm in self._norms_across(block.get_submodule(self._layout.attention)).items():
            weights[f"{name}.{part}"] = weights[f"{name}.{part}"][rows(norm)]

    def _narrowed(self, channels: int, groups: int) -> PreTrainedConfig:
        config: Any = copy.deepcopy(self._model.config)
        setattr(config, self._layout.width_key, channels)
        if self._heads:
            attention: Any = self._blocks[0].get_submodule(self._layout.attention)
            # Else it would follow from the number of heads.
            config.head_dim = int(attention.head_dim)
            config.num_attention_heads = config.num_attention_heads // self._groups * groups
            config.num_key_value_heads = groups
        return config  # type: ignore[no-any-return]


def _of_channels(entered: Tensor) -> Tensor:
    """The sum of squares of each channel over tokens."""
    return entered.square().sum(0)


def _of_groups(entered: Tensor, output: nn.Module, groups: int) -> Tensor:
    """The sum of squares, over tokens, of what each group of heads adds through the output matrix."""
    parts = zip(entered.chunk(groups, 1), matrix(output).float().chunk(groups, 1), strict=True)
    return torch.stack([(heads @ columns.T).square().sum() for heads, columns in parts])


def _largest(scores: Tensor, count: int) -> Tensor:
    """The indices of the largest scores, in order."""
    return scores.topk(count).indices.sort().values


def _row_size(module: nn.Module) -> int:
    """The parameters of one output of a linear layer."""
    return matrix(module).shape[1] + (module.bias is not None)
