"""A decoder run layer by layer on calibration windows, so that one layer's inputs are in memory and no more.

Each layer sees what the layers below give as they are by then, quantized if they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from luthier import InputError
from luthier_onnx.routes import routes
from luthier_quantize.calibration import batches
from luthier_quantize.options import without_layers
from luthier_tune.split import layer_list

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOLERANCE = 1e-4
_PROBE_TOKENS = 16


@dataclass(frozen=True)
class Group:
    """Products of one input: exporters may put them into one, so they are kept alike.

    Attributes:
        weights: the names of their weights in the model, with their modules.
        second_moment: the mean outer product of the input, weighted, (columns, columns).
    """

    weights: Mapping[str, nn.Linear]
    second_moment: Tensor

    @property
    def name(self) -> str:
        """The names, shortened: `model.layers.0.self_attn.q_proj+k_proj+v_proj`."""
        first, *others = (name.removesuffix(".weight") for name in self.weights)
        return "+".join([first, *(name.rpartition(".")[2] for name in others)])


class _Stop(Exception):
    """Ends a forward pass at the first layer: what was wanted is at hand."""


class LayerByLayer:
    """The layers of a model with the states that enter the next one.

    Args:
        model: a decoder, on its device.
        windows: ids, (windows, tokens).

    Raises:
        InputError: if its layers, called one by one, do not give what the model gives.
    """

    def __init__(self, model: PreTrainedModel, windows: Tensor) -> None:
        found = layer_list(model)
        # Of a list that is not the body's own (OPT's) it is not known what comes after it.
        if found is None or "." in found[0]:
            raise _cannot(model)
        prefix, self._layers = found
        base = model.base_model_prefix
        self._prefix = f"{base}.{prefix}" if base and model.base_model is not model else prefix
        self._model = model
        self._check()
        self._batches = batches(windows)
        shapes = {batch.shape: batch for batch in self._batches}
        self._given = {shape: self._arguments(batch) for shape, batch in shapes.items()}
        self._states = [self._first_states(batch) for batch in self._batches]
        self._next = 0

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def layer(self) -> nn.Module:
        """The next layer."""
        return self._layers[self._next]

    @property
    def head_width(self) -> int:
        """The width of an attention head."""
        config: Any = self._model.config.get_text_config()
        return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

    def output(self) -> Tensor:
        """What the next layer, as it is now, makes of the first few windows: (windows, tokens, width)."""
        return self._call(self._next, self._states[0])

    @property
    def linears(self) -> dict[str, nn.Linear]:
        """The products of the next layer, by the names of their weights in the model."""
        return {
            f"{self._prefix}.{self._next}.{name}.weight": module
            for name, module in self.layer.named_modules()
            if isinstance(module, nn.Linear)
        }

    def groups(self, weights: Mapping[str, Tensor] | None = None) -> list[Group]:
        """Run the next layer, and give what its products read.

        Args:
            weights: for a weight's name what each token counts, (windows, tokens); as much as every other where
                not given.
        """
        linears = self.linears
        heard: dict[str, int] = {}
        moments: dict[str, Tensor] = {}
        for number, states in enumerate(self._states):
            seen: dict[int, str] = {}
            with _hearing(linears) as inputs:
                self._call(self._next, states)
            for name, given in inputs.items():
                # The first product that reads an input speaks for all that read the same one.
                first = seen.setdefault(id(given), name)
                heard[name] = list(linears).index(first)
                if first == name:
                    rows = given.flatten(0, -2).float()
                    if weights is not None and name in weights:
                        share = batches(weights[name])[number].flatten().to(rows.device)
                        rows = rows * share.sqrt()[:, None]
                    moments[name] = moments.get(name, 0) + rows.T @ rows
        names = list(linears)
        tokens = sum(batch.numel() for batch in self._batches)
        return [
            Group({each: linears[each] for each in names if heard.get(each) == names.index(first)}, moment / tokens)
            for first, moment in moments.items()
        ]

    def advance(self) -> None:
        """Run the next layer as it is now; its outputs are the inputs of the one after it."""
        self._states = [self._call(self._next, states) for states in self._states]
        self._next += 1

    def final_states(self) -> Iterator[Tensor]:
        """What the head reads after the last layer: (windows, tokens, width), a few windows at a time."""
        norm = _after_layers(self._model, self._layers)
        for states in self._states:
            with torch.no_grad():
                yield norm(states)

    def _call(self, number: int, states: Tensor) -> Tensor:
        positional, named = self._given[states.shape[:2]][number]
        with torch.no_grad():
            result = self._layers[number](states, *positional, **named)
        output: Tensor = result[0] if isinstance(result, tuple) else result
        return output

    def _arguments(self, batch: Tensor) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What the model gives each layer beside the states: masks, positions."""
        found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def hear(_layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = {key: value for key, value in named.items() if key != "hidden_states"}
            found.append((positional[1:], given))

        hooks = [layer.register_forward_pre_hook(hear, with_kwargs=True) for layer in self._layers]
        self._run(batch, hooks)
        return found

    def _first_states(self, batch: Tensor) -> Tensor:
        found: list[Tensor] = []

        def stop(_layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(positional[0] if positional else named["hidden_states"])
            raise _Stop

        self._run(batch, [self._layers[0].register_forward_pre_hook(stop, with_kwargs=True)])
        return found[0]

    def _run(self, batch: Tensor, hooks: list[Any]) -> None:
        try:
            with torch.no_grad():
                self._model.base_model(batch.to(self._model.device), use_cache=False)
        except _Stop:
            pass
        finally:
            for hook in hooks:
                hook.remove()

    def _check(self) -> None:
        """Measure on a few tokens that the layers one by one give what the model gives."""
        vocabulary = self._model.config.get_text_config().vocab_size
        probe = torch.arange(1, _PROBE_TOKENS + 1)[None] % vocabulary
        expected: list[Tensor] = []
        last = self._layers[-1].register_forward_hook(
            lambda _layer, _inputs, output: expected.append(output[0] if isinstance(output, tuple) else output)
        )
        self._run(probe, [])
        last.remove()
        self._given = {probe.shape: self._arguments(probe)}
        states = self._first_states(probe)
        try:
            for number in range(len(self._layers)):
                states = self._call(number, states)
        except (TypeError, ValueError, RuntimeError) as error:
            raise _cannot(self._model) from error
        if (states - expected[0]).abs().max() > _TOLERANCE * expected[0].abs().max():
            raise _cannot(self._model)


class _hearing:  # noqa: N801 - used as a function
    """Collects what each product reads while it is entered."""

    def __init__(self, linears: Mapping[str, nn.Linear]) -> None:
        self._linears = linears
        self._inputs: dict[str, Tensor] = {}

    def __enter__(self) -> dict[str, Tensor]:
        def hear(name: str) -> Any:
            return lambda _module, given: self._inputs.__setitem__(name, given[0])

        self._hooks = [module.register_forward_pre_hook(hear(name)) for name, module in self._linears.items()]
        return self._inputs

    def __exit__(self, *_error: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _after_layers(model: PreTrainedModel, layers: nn.ModuleList) -> nn.Module:
    """The normalisation between the last layer and the head."""
    children = list(model.base_model.children())
    after = [child for child in children[children.index(layers) + 1 :] if "norm" in type(child).__name__.lower()]
    return after[0] if after else nn.Identity()


def _cannot(model: PreTrainedModel) -> InputError:
    by_genai = "genai" in routes(model.config.to_dict())
    return without_layers(type(model).__name__, by_genai=by_genai)
