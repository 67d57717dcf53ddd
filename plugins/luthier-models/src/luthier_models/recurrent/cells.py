"""Gated recurrent cells over padded batches and over packed documents, their state, and their first weights.

The cells are PyTorch's `GRU` and `LSTM`, which run all steps of a layer in one call (oneDNN on CPUs, cuDNN on
GPUs). On a CPU the backward pass of a *packed* GRU takes seven times as long as that of a padded one, so
documents are trained as padded batches from which those that ended are taken out (`run_documents`), and
PyTorch's packing is for prompts of unequal length only (`run_padded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init

from luthier_models.recurrent.gates import GATES

if TYPE_CHECKING:
    from torch import Tensor

CELLS: dict[str, Any] = {"gru": nn.GRU, "lstm": nn.LSTM}

States = tuple["Tensor", ...]
"""A cell's state, (layers, documents, width) each: the output, and for an LSTM the memory."""


class RecurrentState:
    """What a recurrent model keeps of the tokens that it has read: the cache of `generate`, whose size is constant.

    Args:
        states: the cell's state.
        tokens: how many tokens it has read.
    """

    is_compileable = False

    def __init__(self, states: States, tokens: int) -> None:
        self.states = states
        self.tokens = tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens were read; all layers have read the same."""
        return self.tokens

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the states of the beams that are continued."""
        self.states = tuple(each.index_select(1, beam_idx.to(each.device)) for each in self.states)


def make_cell(name: str, input_width: int, width: int, layers: int, dropout: float) -> nn.RNNBase:
    """A stack of layers of one cell; `dropout` is between them."""
    between = dropout if layers > 1 else 0.0
    cell: nn.RNNBase = CELLS[name](input_width, width, layers, batch_first=True, dropout=between)
    return cell


def run(cell: nn.RNNBase, inputs: Tensor, states: States | None = None) -> tuple[Tensor, States]:
    """Run over (documents, tokens, width of the input) without padding: the outputs and the last states."""
    outputs, last = cell(inputs, _as_given(states))
    return outputs, _as_tuple(last)


def run_padded(cell: nn.RNNBase, inputs: Tensor, mask: Tensor, states: States | None = None) -> tuple[Tensor, States]:
    """Run over documents of unequal length, as if their padding, on whichever side, were not there.

    Args:
        cell: the layers.
        inputs: (documents, tokens, width of the input).
        mask: (documents, tokens), 0 at padding; a document has at least one token.
        states: where to start; zeros if None.

    Returns:
        The outputs, (documents, tokens, width), zeros at padding, and each document's last states.
    """
    order = mask.long().argsort(dim=1, descending=True, stable=True)
    back = order.argsort(dim=1)
    # An empty document would be refused; what it reads instead is padding, and nobody looks at it.
    lengths = mask.long().sum(1).clamp(min=1).cpu()
    packed = pack_padded_sequence(pick(inputs, order), lengths, batch_first=True, enforce_sorted=False)
    outputs, last = cell(packed, _as_given(states))
    padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
    return pick(padded, back), _as_tuple(last)


def run_documents(cell: nn.RNNBase, inputs: Tensor, lengths: Sequence[int]) -> Tensor:
    """Run over documents that follow each other in one row, each from a state of zeros, side by side.

    Whenever a quarter of the documents have ended, the others go on without them, so that at most a quarter of
    the work is on padding.

    Args:
        cell: the layers.
        inputs: (tokens, width of the input), the documents' one after the other.
        lengths: the tokens of each document, in order.

    Returns:
        The outputs, (tokens, width).
    """
    device = inputs.device
    sizes = torch.tensor(lengths, device=device)
    starts = sizes.cumsum(0) - sizes
    order = sizes.argsort(descending=True, stable=True)
    sizes, starts = sizes[order], starts[order]
    sorted_lengths = sizes.tolist()
    outputs: list[Tensor] = []
    places: list[Tensor] = []
    states: States | None = None
    alive, done = len(sorted_lengths), 0
    while alive:
        end = sorted_lengths[3 * alive // 4]
        steps = torch.arange(done, end, device=device)
        grid = starts[:alive, None] + steps
        real = steps < sizes[:alive, None]
        if states is not None:
            states = tuple(each[:, :alive].contiguous() for each in states)
        found, states = run(cell, inputs[grid.where(real, starts[:alive, None])], states)
        outputs.append(found[real])
        places.append(grid[real])
        done = end
        alive = sum(length > done for length in sorted_lengths[:alive])
    return torch.cat(outputs)[torch.cat(places).argsort()]


def initialise(cell: nn.RNNBase) -> None:
    """Give the layers their first weights, from torch's global random state.

    Input weights are Xavier's; recurrent ones are orthogonal in each gate (Saxe et al., 2014, arXiv:1312.6120),
    so that states neither grow nor fade; an LSTM's forget gates start open, with a bias of 1 (Jozefowicz et al.,
    2015, *An Empirical Exploration of Recurrent Network Architectures*).
    """
    gates = GATES[cell.mode.lower()]
    width = cell.hidden_size
    for name, parameter in cell.named_parameters():
        # Weights that were just loaded are marked; computing an orthogonal matrix for them would be for nothing.
        if getattr(parameter, "_is_hf_initialized", False):
            continue
        value = torch.zeros_like(parameter)
        if name.startswith("weight"):
            draw: Any = nn.init.orthogonal_ if "_hh_" in name else nn.init.xavier_uniform_
            for gate in value.chunk(gates):
                draw(gate)
        elif name.startswith("bias_ih") and isinstance(cell, nn.LSTM):
            # The gates' order is input, forget, cell, output.
            value[width : 2 * width] = 1.0
        init.copy_(parameter, value)


def pick(values: Tensor, order: Tensor) -> Tensor:
    """Each document's rows of (documents, tokens, width) values in its (documents, tokens) order."""
    return values.gather(1, order[..., None].expand(*order.shape, values.shape[-1]))


def _as_given(states: States | None) -> Any:
    return states[0] if states is not None and len(states) == 1 else states


def _as_tuple(states: Any) -> States:
    return states if isinstance(states, tuple) else (states,)
