"""How much each output of each product matters to the model's predictions, from one backward pass.

A small change of a product's outputs, d(t, r) at token t and row r, moves the predictions by about half the sum over
t and r of E[g(t, r)^2] d(t, r)^2 nats in KL, where g is the gradient of the log-likelihood of next tokens that are
drawn from the model itself: the diagonal of the Fisher information. Rounding errors of different rows have different
signs, so that what is off the diagonal averages out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedModel


@dataclass
class Importance:
    """Of the outputs of a product, or of an embedding's lookups.

    Attributes:
        rows: the mean of the squared gradient over tokens, (rows,).
        tokens: for each token the mean over rows, relative to that of all tokens, (windows, tokens).
    """

    rows: Tensor
    tokens: Tensor


def importances(
    model: PreTrainedModel,
    windows: Tensor,
    modules: Mapping[str, nn.Module],
    seed: int,
    progress: Callable[[int], None] = lambda _done: None,
) -> dict[str, Importance]:
    """Measure the importance of modules' outputs.

    Args:
        model: a decoder whose parameters ask for no gradients.
        windows: ids, (windows, tokens).
        modules: by name; each gives one tensor, (windows, tokens, rows).
        seed: of the tokens that are drawn.
        progress: told after each window.
    """
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, Tensor] = {}
    tokens: dict[str, list[Tensor]] = {name: [] for name in modules}

    def hear(name: str) -> Any:
        def note(gradient: Tensor) -> None:
            squared = gradient[0].float().square()
            rows[name] = rows.get(name, 0) + squared.sum(0)
            tokens[name].append(squared.mean(1))

        def watch(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            output.register_hook(note)  # type: ignore[no-untyped-call]

        return watch

    # The first states ask for gradients, so that what is computed from them has some.
    embedding: nn.Module = model.get_input_embeddings()
    hooks = [embedding.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))]
    hooks += [module.register_forward_hook(hear(name)) for name, module in modules.items()]
    try:
        for number, window in enumerate(windows):
            logits = model(window[None].to(model.device), use_cache=False).logits[0].float()
            drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=generator)
            loss = nn.functional.cross_entropy(logits, drawn[:, 0].to(logits.device), reduction="sum")
            torch.autograd.backward(loss)
            progress(number + 1)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name in modules:
        each = torch.stack(tokens[name])
        found[name] = Importance(rows[name] / windows.numel(), each / each.mean().clamp_min(1e-30))
    return found


def predicted_kl(error: Tensor, second_moment: Tensor, rows: Tensor) -> float:
    """The KL in nats a token that an error of a matrix leads to.

    Args:
        error: (rows, columns).
        second_moment: the mean outer product of the inputs, (columns, columns), each token weighted by its importance.
        rows: the importance of the outputs, (rows,).
    """
    return float(0.5 * ((error @ second_moment) * error).sum(1).double() @ rows.double())
