"""The settings that tuners share. Light: loaded while planning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from luthier import InputError, Search, settings


@settings
@dataclass(frozen=True, kw_only=True)
class Training:
    """How a tuner trains: the optimizer, the batches, the budget, what is measured and kept.

    Attributes:
        learning_rate: at its peak; it falls linearly to zero over the last three tenths of the steps.
        warmup_steps: steps over which it rises to the peak.
        weight_decay: of AdamW.
        max_gradient_norm: gradients are scaled down to this norm.
        batch_size: examples of one step.
        max_length: tokens of one example; a longer prompt loses the end of its text, never the completion,
            and longer plain text is cut into pieces. A classifier's text loses its end, then and ever after.
        max_steps: the budget, in optimizer steps. At most one budget may be given.
        max_epochs: the budget, in passes over the training split; one, if no budget is given.
        max_minutes: the budget, in minutes of training and validation on this machine.
        evaluate_every: steps between measurements of the validation loss, besides the first and the last. If
            it is not given and `keep` or `patience` needs them: an epoch, or longer where they would take more
            than about a tenth of the time.
        valid_examples: how many examples of the split `valid` that loss is measured on.
        keep: which weights are the result: the `best`, of the lowest validation loss that was measured in
            training, or the `last`.
        patience: training stops after so many measurements in a row that are no better than the best before.
        checkpoint_minutes: minutes between checkpoints, from which a killed step goes on.
    """

    learning_rate: Annotated[float, Gt(0)] = 5e-4
    warmup_steps: Annotated[int, Ge(0)] = 5
    weight_decay: Annotated[float, Ge(0)] = 0.0
    max_gradient_norm: Annotated[float, Gt(0)] = 1.0
    batch_size: Annotated[int, Ge(1)] = 4
    max_length: Annotated[int, Ge(8)] = 512
    max_steps: Annotated[int, Ge(1)] | None = None
    max_epochs: Annotated[float, Gt(0)] | None = None
    max_minutes: Annotated[float, Gt(0)] | None = None
    evaluate_every: Annotated[int, Ge(1)] | None = None
    valid_examples: Annotated[int, Ge(0)] = 64
    keep: Literal["best", "last"] = "best"
    patience: Annotated[int, Ge(1)] | None = None
    checkpoint_minutes: Annotated[float, Ge(0)] = 1.0


@settings
@dataclass(frozen=True, kw_only=True)
class ParallelTraining(Training):
    """How a tuner trains that can do so in several processes.

    Attributes:
        processes: over how many processes each batch is divided, on CPUs, or on CUDA devices with one each: on
            this machine, or where the step's `executor` says. The losses are those of one process, but for the
            order of additions.
    """

    processes: Annotated[int, Ge(1)] = 1


SHARDED_ON = ("cuda",)
"""The devices that a model is sharded over. The tests, which have no GPU, add `cpu`."""


@dataclass(frozen=True, kw_only=True)
class Fsdp:
    """Fully sharded data parallelism; the fields are those of accelerate's `FullyShardedDataParallelPlugin`, version 2.

    Attributes:
        reshard_after_forward: drop the gathered weights of a layer after its forward pass, and gather them again in
            the backward pass: less memory, more traffic.
        auto_wrap_policy: what is gathered at once: a layer as the architecture has them, modules of at least
            `min_num_params` parameters, or the whole model.
        transformer_cls_names_to_wrap: the classes of the layers; if not given, those that the architecture names.
        min_num_params: for `size_based_wrap`.
        mixed_precision_policy: compute and add up gradients in `bf16`; weights and moments stay as they are.
        cpu_offload: keep weights, gradients and moments on the CPU between uses.
        activation_checkpointing: compute the activations of a layer again in the backward pass.
    """

    reshard_after_forward: bool = True
    auto_wrap_policy: Literal["transformer_based_wrap", "size_based_wrap", "no_wrap"] = "transformer_based_wrap"
    transformer_cls_names_to_wrap: list[str] = field(default_factory=list)
    min_num_params: Annotated[int, Ge(1)] | None = None
    mixed_precision_policy: Literal["bf16"] | None = None
    cpu_offload: bool = False
    activation_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """The 4-bit integers that the weights of products are to become: as `quantize: int4` has them.

    Attributes:
        method: how scale and zero point of a block are found. `rtn` is the fastest, and is found anew in each step.
        block_size: so many weights of a row share one scale.
    """

    method: Literal["rtn", "k-quant", "hqq"] = "rtn"
    block_size: Literal[16, 32, 64, 128, 256] = 32


def check_lora(
    *,
    quantization: Quantization | None,
    targets: str | list[str],
    dropout: float,
    dora: bool,
    fsdp: Fsdp | None,
    **others: Any,
) -> None:
    """Refuse what adapters that are trained against integers cannot have, and what `check_sharded` refuses.

    Raises:
        InputError: naming it.
    """
    check_sharded(fsdp=fsdp, **others)
    if quantization is None:
        return
    unlike = {"dropout": dropout > 0, "dora": dora, "fsdp": fsdp is not None}
    given = [name for name, is_given in unlike.items() if is_given]
    if given:
        raise InputError(f"`{given[0]}` does not go with `quantization`", "Keep one of them.")
    if targets != "all-linear":
        raise InputError(
            "`quantization` rounds all layers, and `targets` names some", "Leave `targets` out; `ranks` may differ."
        )


def check_sharded(*, fsdp: Fsdp | None, processes: int, **others: Any) -> None:
    """Refuse to shard over one process, keys of `fsdp` that do not go together, and what `check_budget` refuses.

    Raises:
        InputError: naming them.
    """
    check_budget(**others)
    if fsdp is None:
        return
    if processes == 1:
        raise InputError("`fsdp` shards a model over processes, and `processes` is 1", "Raise it: one for each GPU.")
    by_size = fsdp.auto_wrap_policy == "size_based_wrap"
    if by_size != (fsdp.min_num_params is not None):
        raise InputError(
            "fsdp: `min_num_params` and `auto_wrap_policy: size_based_wrap` go together", "Give both, or neither."
        )
    if fsdp.transformer_cls_names_to_wrap and fsdp.auto_wrap_policy != "transformer_based_wrap":
        raise InputError(
            "fsdp: `transformer_cls_names_to_wrap` goes with `auto_wrap_policy: transformer_based_wrap`",
            "Keep one of them.",
        )


def check_budget(
    *,
    max_steps: int | None,
    max_epochs: float | None,
    max_minutes: float | None,
    patience: int | None = None,
    valid_examples: int = 1,
    **_: object,
) -> None:
    """Refuse more than one budget, and patience without a validation; takes a tuner's whole configuration.

    Raises:
        InputError: naming the budgets that were given, or `valid_examples`.
    """
    if patience is not None and valid_examples == 0:
        raise InputError("valid_examples is 0, and `patience` waits for a better validation loss", "Raise it.")
    budgets = {"max_steps": max_steps, "max_epochs": max_epochs, "max_minutes": max_minutes}
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"more than one training budget: {', '.join(given)}", "Keep one of them.")


def check_layers(*, top: int | None, names: list[str], rank: int | None = None, **others: Any) -> None:
    """Refuse two ways to say which layers are trained, adapters in none, and more than one budget.

    Raises:
        InputError: naming what was given.
    """
    check_budget(**others)
    if top is not None and names:
        raise InputError("`top` and `names` both say which layers are trained", "Keep one of them.")
    if top == 0 and rank is not None:
        raise InputError("`rank` is of adapters in layers, and with `top: 0` none is trained", "Leave `rank` out.")


def no_head() -> InputError:
    """The error of training a head alone that is not there."""
    return InputError(
        "`top` is 0, and the model has no classification head that could be trained alone",
        "Put one on it (`tune: classification-head`), or train a layer or more.",
    )


def no_template() -> InputError:
    """The error of a soft prompt that nothing would put in front of prompts."""
    return InputError(
        "the model has no chat template, which is what puts a soft prompt in front of prompts",
        "Put a chat_template.jinja beside its tokenizer, or tune it with `lora`.",
    )


def check_factors(*, targets: str | list[str], feedforward: list[str], **others: Any) -> None:
    """Refuse layers whose inputs get factors that are no targets, and more than one budget.

    Raises:
        InputError: naming them.
    """
    check_budget(**others)
    strange = [name for name in feedforward if targets == "auto" or name not in targets]
    if strange:
        raise InputError(f"`feedforward` names what `targets` does not: {', '.join(strange)}", "Name them in both.")


def check_validated(*, valid_examples: int, **_: object) -> None:
    """Refuse to compare candidates by what is not measured; takes a tuner's whole configuration.

    Raises:
        InputError: if `valid_examples` is 0.
    """
    if valid_examples == 0:
        raise InputError("valid_examples is 0, and candidates are compared on the validation split", "Raise it.")


BY_VALID_LOSS = Search(
    "valid_loss",
    better="lower",
    budgets={"max_steps": "steps", "max_epochs": "epochs", "max_minutes": "minutes"},
    split="valid",
    check=check_validated,
)
"""How tuners compare where a recipe gives them lists of values."""
