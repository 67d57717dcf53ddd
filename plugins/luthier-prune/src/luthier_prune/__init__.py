"""Pruners: whole layers, width, tokens of the vocabulary, single weights; each measures the damage that it does.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, MinLen

from luthier import component, hookimpl
from luthier_models.devices import check_device
from luthier_prune.layouts import check_family
from luthier_prune.options import BY_DIVERGENCE, FORMS, Pruning, check_target, check_vocabulary, check_weights

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model


@component(
    needs={"model": {"causal-lm"}, "data": FORMS},
    check=check_target,
    check_inputs=check_family,
    check_device=check_device,
    search=BY_DIVERGENCE,
)
def layers(model: Model, data: Dataset, ctx: Context, *, pruning: Pruning = Pruning()) -> None:
    """Remove whole layers: those that change the hidden states of the calibration examples least.

    A layer's influence is one minus the cosine of what enters it and what leaves it, a mean over tokens (block
    influence; Men et al., 2024, *ShortGPT*, arXiv:2403.03853). The rest is as it was, with all of its speed.
    A model loses much by this before it is healed: tune it afterwards, best with `distill` and the unpruned model as
    its `teacher`. Metrics: `parameters`, `megabytes` and `perplexity`, each also with `_before`; `mean_kl`, in nats a
    token, of the pruned model from the unpruned; `removed_layers`. The table `layers` has the influence of each, and
    `quality-by-size` what smaller cuts cost.

    For decoders of the families Llama, Mistral, Qwen2, Qwen3, SmolLM3, OLMo 2, StableLM, GPT-2 and OPT.
    """
    from luthier_prune.course import prune
    from luthier_prune.depth import Depth

    prune(model, data, ctx, pruning, Depth)


@component(
    needs={"model": {"causal-lm"}, "data": FORMS},
    check=check_target,
    check_inputs=check_family,
    check_device=check_device,
    search=BY_DIVERGENCE,
)
def width(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    parts: Annotated[list[Literal["mlp", "heads"]], MinLen(1)] = ["mlp"],  # noqa: B006 - read, never written
    multiple_of: Annotated[int, Ge(1)] = 32,
    pruning: Pruning = Pruning(),
) -> None:
    """Narrow the layers: channels of the MLPs, and heads of attention with the keys and values that they share.

    What adds least to the hidden states of the calibration examples goes: the root mean square of what a channel, or
    a group of heads, adds to them, as its activation and its column of the output matrix give it. (Importance by
    activations: Muralidharan et al., 2024, *Minitron*, arXiv:2407.14679; times the norm of the weights: Sun et al.,
    2023, *Wanda*, arXiv:2306.11695.) Every layer loses the same number, each its own. Heal it afterwards, as after
    `layers`, whose metrics it has; the table `width` has the share of the importance that each layer lost.

    For the families of `layers`; heads only where their width does not follow from their number, which in StableLM,
    GPT-2 and OPT it does.

    Args:
        parts: what gets narrower: `mlp`, `heads`. The share is the same for both, heads rounded down.
        multiple_of: channels that stay are a multiple of this, as quantization in blocks wants it.
    """
    from functools import partial

    from luthier_prune.channels import Width
    from luthier_prune.course import prune

    prune(model, data, ctx, pruning, partial(Width, parts=parts, multiple_of=multiple_of))


@component(
    needs={"model": {"causal-lm"}, "data": FORMS},
    check=check_vocabulary,
    check_device=check_device,
    search=BY_DIVERGENCE,
)
def vocabulary(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    min_frequency: Annotated[int, Ge(1)] | None = None,
    pruning: Pruning = Pruning(curve=8),
) -> None:
    """Drop tokens that the training split does not use from the embedding, the output layer and the tokenizer.

    Every text can still be written: single bytes or characters, special tokens and the pieces of what stays are
    kept, so a rare word takes more tokens. What the tokens that stay mean, and how texts of them only are cut, is
    as before; all ids are new ones, also in the configurations. `distill` needs a teacher with the same vocabulary:
    prune the vocabulary first, and let that model teach. (Trimming a vocabulary to the language in use: Abdaoui et
    al., 2020, arXiv:2010.05609.)

    Without a target, what occurs at all in the training split stays (`min_frequency`); with one, the most frequent.
    Metrics: `vocabulary`, `parameters`, `megabytes`, `bits_per_byte` and `tokens_per_byte` on held-out examples, each
    also with `_before`; `mean_kl` is of the unpruned model's distribution from the pruned one's, which is minus the
    logarithm of the probability that the unpruned gave to all that stays. The table `removed-tokens` has what went,
    and `quality-by-size` the divergence at other sizes.

    For byte-pair encoding and unigram tokenizers; of models, recurrent ones too.

    Args:
        min_frequency: how often a token, or one that is made of it, must occur to stay; 1 if there is no target.
    """
    from luthier_prune.tokens.prune import prune_vocabulary

    prune_vocabulary(model, data, ctx, pruning, min_frequency=min_frequency)


@component(
    needs={"model": {"causal-lm"}, "data": FORMS},
    check=check_weights,
    check_inputs=check_family,
    check_device=check_device,
    search=BY_DIVERGENCE,
)
def weights(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    method: Literal["wanda", "magnitude"] = "wanda",
    pattern: Literal["unstructured", "2:4", "4:8"] = "unstructured",
    pruning: Pruning = Pruning(),
) -> None:
    """Set single weights of the layers to zero. It makes no model smaller or faster on ONNX Runtime's CPU provider.

    The zeros are stored and multiplied like any weight there; what gains are formats and kernels that know sparse
    weights, such as those of recent NVIDIA GPUs for 2:4. Metrics are those of `layers`, with `parameters` those that
    are not zero, and `removed_percent`; the table `weights` has the share of zeros in each matrix.

    For the families of `layers`.

    Args:
        method: `wanda`, the weight's size times the norm of its input on calibration examples, compared within an
            output's weights (Sun et al., 2023, arXiv:2306.11695); or `magnitude`, its size alone, within a matrix.
        pattern: `unstructured`, anywhere; or two of each four, or four of each eight, neighbouring inputs.
    """
    from dataclasses import replace
    from functools import partial

    from luthier_prune.course import prune
    from luthier_prune.sparsity import Sparsity

    ctx.log.info("zeros are stored and multiplied on ONNX Runtime's CPU provider: no smaller and no faster model there")
    if pattern != "unstructured":
        pruning = replace(pruning, ratio=0.5, curve=0)
    prune(model, data, ctx, pruning, partial(Sparsity, method=method, pattern=pattern))


@hookimpl
def luthier_pruners() -> list[Callable[..., Any]]:
    """Give the pruners."""
    return [layers, width, vocabulary, weights]
