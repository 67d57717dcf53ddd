"""Tuners on packed sequences: adapters, all weights or some layers, factors, a soft prompt, and by a teacher.

And the executor that starts their processes on this machine.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from luthier import InputError, component, hookimpl
from luthier_models.devices import check_device
from luthier_tune.options import (
    BY_VALID_LOSS,
    Fsdp,
    ParallelTraining,
    Quantization,
    check_budget,
    check_factors,
    check_layers,
    check_lora,
    check_sharded,
    no_head,
    no_template,
)

if TYPE_CHECKING:
    from luthier import Context, Dataset, Job, Known, Model

PROMPTED = {"prompt-completion", "chat"}
TEXTS = PROMPTED | {"language-modelling"}
LEARNABLE = TEXTS | {"classification"}
LANGUAGE_MODELS = {"causal-lm", "seq2seq-lm"}
FORMS = LANGUAGE_MODELS | {"sequence-classifier"}


tuner = partial(component, check_device=check_device, search=BY_VALID_LOSS, processes=True)
"""What all tuners declare: they compute on a device, are compared by their loss, and can be spread over processes."""


def check_task(_configuration: Mapping[str, Any], *, model: Known, data: Known, teacher: Known | None = None) -> None:
    """Refuse what an architecture cannot learn, or cannot teach; takes what is known of a tuner's inputs.

    Raises:
        InputError: saying which architecture can.
    """
    if model.form == "sequence-classifier" and data.form != "classification":
        raise InputError(
            f"a classifier learns the labels of texts, and the data is of the form {data.form}",
            "Make texts with labels (`format: classification`), or tune the model that the head was put on.",
        )
    if model.form != "sequence-classifier" and data.form == "classification":
        raise InputError(
            "a language model learns texts, not labels",
            "Put a head on it (`tune: classification-head`) before this step, or make each label the completion of a "
            "prompt (`format: prompt-completion`).",
        )
    if model.form == "seq2seq-lm" and data.form == "language-modelling":
        raise InputError(
            "an encoder-decoder learns completions of prompts, and cannot model texts alone",
            "Make pairs (`format: prompt-completion`, `translation`, `summarization`), or take a decoder "
            "(`architecture: fresh` with `family: llama`).",
        )
    if data.form == "chat" and model.traits.get("chat_template") is False:
        raise InputError(
            "a new model has no chat template, so it cannot be given conversations",
            "Make pairs (`format: prompt-completion`), or take a pretrained model with a template.",
        )
    if teacher is not None and teacher.form != model.form:
        raise InputError(
            f"the teacher is a {teacher.form} and the model a {model.form}: they do not predict the same",
            "Name a teacher of the model's form, with its tokenizer.",
        )


def check_chosen(configuration: Mapping[str, Any], *, model: Known, data: Known) -> None:
    """Refuse to train a head alone where there is none, besides what `check_task` refuses.

    Raises:
        InputError: saying where a head comes from.
    """
    check_task(configuration, model=model, data=data)
    if configuration["top"] == 0 and model.form != "sequence-classifier":
        raise no_head()


def check_prompted(configuration: Mapping[str, Any], *, model: Known, data: Known) -> None:
    """Refuse a soft prompt of a model that is known to have no chat template, besides what `check_task` refuses.

    Raises:
        InputError: saying what else there is.
    """
    if model.traits.get("chat_template") is False:
        raise no_template()
    check_task(configuration, model=model, data=data)


@tuner(needs={"model": FORMS, "data": LEARNABLE}, check=check_lora, check_inputs=check_task)
def lora(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    rank: Annotated[int, Ge(1)] = 16,
    alpha: Annotated[float, Gt(0)] | None = None,
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    targets: Literal["all-linear"] | Annotated[list[str], MinLen(1)] = "all-linear",
    ranks: dict[str, Annotated[int, Ge(1)]] = {},  # noqa: B006 - read, never written
    rslora: bool = False,
    dora: bool = False,
    init: Literal["zero", "pissa"] = "zero",
    loraplus_ratio: Annotated[float, Ge(1)] = 1.0,
    quantization: Quantization | None = None,
    fsdp: Fsdp | None = None,
    training: ParallelTraining = ParallelTraining(),
) -> None:
    """Train low-rank adapters (LoRA) on the completions, and merge them into the model.

    Sequences are packed, the loss covers the completion's tokens, and the result holds the merged
    model with the adapter beside it. A classifier's head is trained with them, in full. `max_steps` and
    `max_epochs` give the same bytes again at a fixed number of threads, also after a kill; `max_minutes` ends
    after a number of steps, which is recorded as the metric `steps`, and `max_steps` of that number gives the
    same bytes.

    Args:
        rank: the adapters' rank.
        alpha: their scale, divided by `rank` (with `rslora` by its root); if not given, twice the rank, and
            with `rslora` 8, which is the same scale at rank 16.
        dropout: the share of an adapter's inputs that is dropped in training.
        targets: the layers that get an adapter: all linear ones but the output layer, or those of these names
            (`q_proj`, or in full `model.layers.0.self_attn.q_proj`).
        ranks: other ranks for layers of these names, `{q_proj: 4, down_proj: 32}`; the scale stays that of `rank`,
            or with `rslora` falls with the root of each.
        rslora: scale by the root of the rank (rsLoRA, arXiv:2312.03732), so that any rank learns as steadily.
        dora: learn the length of each row of a weight apart from its direction (DoRA, arXiv:2402.09353). It costs
            more time and memory, as each step makes the whole changed weights.
        init: how the adapters start: `zero`, without effect, or `pissa`, with the largest singular values of the
            weights themselves (PiSSA, arXiv:2404.02948). The adapter that is kept is for the weights as they
            were, at twice the rank.
        loraplus_ratio: how many times faster the adapters' second matrices learn (LoRA+, arXiv:2402.12354).
        quantization: train the adapters against the 4-bit integers that the merged weights become, `{}` or with keys
            of `quantize: int4`: `method` (`rtn`, if not given) and `block_size`. After the export, `quantize: int4`
            with the same two makes these very integers. The losses, also that by which the best weights are kept, are
            those of the integers.
        fsdp: shard the model over the GPUs of the processes, `{}` or with keys of accelerate's plugin for FSDP version
            2: `reshard_after_forward`, `auto_wrap_policy`, `transformer_cls_names_to_wrap`, `min_num_params`,
            `mixed_precision_policy`, `cpu_offload`, `activation_checkpointing`.
    """
    from luthier_tune.adapters import AdapterSettings, tune

    adapter = AdapterSettings(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        targets=targets,
        ranks=ranks,
        rslora=rslora,
        dora=dora,
        init=init,
        loraplus_ratio=loraplus_ratio,
        quantization=quantization,
    )
    tune(model, data, ctx, adapter=adapter, fsdp=fsdp, settings=training)


@tuner(needs={"model": FORMS, "data": LEARNABLE}, check=check_sharded, check_inputs=check_task)
def full(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    fsdp: Fsdp | None = None,
    training: ParallelTraining = ParallelTraining(
        learning_rate=5e-5, warmup_steps=20, weight_decay=0.01, checkpoint_minutes=5.0
    ),
) -> None:
    """Train all weights: a fresh model from scratch, or a pretrained one in full.

    A fresh model wants a learning rate of about 1e-3. Packing, budgets, checkpoints and reproducibility are
    those of `lora`. Memory: four times the weights, for the gradients and AdamW's two moments, besides the
    activations; a checkpoint takes three times the weights. With `fsdp` the processes share all of it but the
    activations.

    Args:
        fsdp: as that of `lora`.
    """
    from luthier_tune.whole import tune

    tune(model, data, ctx, fsdp=fsdp, settings=training)


@tuner(needs={"model": FORMS, "data": LEARNABLE}, check=check_layers, check_inputs=check_chosen)
def layers(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    top: Annotated[int, Ge(0)] | None = None,
    names: list[str] = [],  # noqa: B006 - read, never written
    rank: Annotated[int, Ge(1)] | None = None,
    activations: Literal["float16", "float32", "recompute"] = "float16",
    training: ParallelTraining = ParallelTraining(learning_rate=1e-4, weight_decay=0.01),
) -> None:
    """Train some layers, the top ones or those that are named; what the frozen ones below give is computed once.

    The activations below the first trained layer are kept on disk, beside the step's checkpoints, and read in
    every later epoch and validation; they are removed when the step is done. The final norm and the output
    layer stay as they are, unless they are named; the head of a classifier is always trained, with `top: 0` alone,
    on what the whole body makes of each example, kept as one row of numbers. Where a model cannot be cut at a
    layer, or what enters its head cannot be told (RoBERTa's, DistilBERT's), which is noted in the log, nothing is kept
    and the result is the same. Packing, budgets, checkpoints and reproducibility are those of `lora`.

    Args:
        top: how many layers are trained, counted from the output; a quarter of them, if nothing is named. 0 trains a
            classifier's head alone, which wants a learning rate of about 1e-3.
        names: the modules that are trained instead: `layers.29`, `layers.28.mlp`, `norm`, `lm_head`. Names may be
            the ends of longer ones, so that `down_proj` means that of every layer.
        rank: train adapters (LoRA) of this rank in these layers, with a scale of 2, and merge them, in place of
            the weights themselves. They want a higher learning rate, of about 5e-4.
        activations: how those of the frozen layers are kept: in `float16`, where an example with numbers too large
            for it is kept in float32; in `float32`, exactly, at twice the space; or not, to `recompute` them.
    """
    from luthier_tune.some_layers import LayerSettings, tune

    tune(model, data, ctx, LayerSettings(top=top, names=names, rank=rank, activations=activations), training)


@tuner(needs={"model": {"causal-lm"}, "data": TEXTS}, check=check_factors, check_inputs=check_task)
def ia3(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    targets: Literal["auto"] | Annotated[list[str], MinLen(1)] = "auto",
    feedforward: list[str] = [],  # noqa: B006 - read, never written
    training: ParallelTraining = ParallelTraining(learning_rate=3e-3),
) -> None:
    """Train factors for keys, values and the MLPs' inner activations ((IA)³), and multiply them into the weights.

    There are far fewer of them than weights of an adapter: about a number for each row of the layers. Packing,
    budgets, checkpoints and reproducibility are those of `lora`; the factors lie beside the model in `adapter/`.

    Args:
        targets: the layers that get factors, by name; `auto` for those that peft knows of the architecture.
        feedforward: those of the targets whose inputs get factors, not their outputs.
    """
    from luthier_tune.rescaling import FactorSettings, tune

    tune(model, data, ctx, FactorSettings(targets=targets, feedforward=feedforward), training)


@tuner(needs={"model": {"causal-lm"}, "data": PROMPTED}, check=check_budget, check_inputs=check_prompted)
def soft_prompt(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    tokens: Annotated[int, Ge(1)] = 20,
    text: str = "",
    training: ParallelTraining = ParallelTraining(learning_rate=1e-2),
) -> None:
    """Train a soft prompt: embeddings that stand before every prompt, while all weights stay as they are.

    They become rows of the embedding for tokens of their own, which the chat template writes first: so the result
    is a model like any other for runtimes and exporters. It works where the template is used; text without it is
    read as before. In `adapter/` the prompt lies by itself, as peft's prompt tuning has it. Packing, budgets,
    checkpoints and reproducibility are those of `lora`.

    Args:
        tokens: the length of the prompt; each prompt of a user is read after so many more tokens.
        text: what the prompt starts as, its tokens again and again; tokens drawn from the vocabulary, if empty.
    """
    from luthier_tune.prompt_tuning import PromptSettings, tune

    tune(model, data, ctx, PromptSettings(tokens=tokens, text=text), training)


@tuner(
    needs={"model": LANGUAGE_MODELS, "teacher": LANGUAGE_MODELS, "data": TEXTS},
    check=check_budget,
    check_inputs=check_task,
)
def distill(
    model: Model,
    teacher: Model,
    data: Dataset,
    ctx: Context,
    *,
    teacher_weight: Annotated[float, Interval(gt=0, le=1)] = 0.5,
    temperature: Annotated[float, Gt(0)] = 1.0,
    rank: Annotated[int, Ge(1)] | None = None,
    training: ParallelTraining = ParallelTraining(learning_rate=1e-4, warmup_steps=10, checkpoint_minutes=5.0),
) -> None:
    """Train towards a teacher's probabilities (knowledge distillation): a larger model, or the one before pruning.

    The loss mixes the Kullback-Leibler divergence of the teacher's distribution from the model's with the
    cross entropy of the completions. The metrics `teacher_kl_before` and `teacher_kl` are that divergence on the
    validation split, in nats a token; `valid_loss` is the cross entropy, as with other tuners. With the model
    itself as its teacher (`teacher: pretrained` on a `pretrained` step), it learns the data and keeps to what it
    could before. Packing, budgets, checkpoints and reproducibility are those of `lora`.

    Args:
        teacher: a model with the same tokenizer.
        teacher_weight: the divergence's share of the loss; cross entropy has the rest.
        temperature: what both models' logits are divided by; above 1, more is learnt of what is unlikely.
        rank: train adapters of this rank, as `lora` does, and merge them; all weights, if not given. Adapters want
            a learning rate of about 5e-4.
    """
    from luthier_tune.adapters import AdapterSettings
    from luthier_tune.distillation import Mixture, tune

    adapter = AdapterSettings(rank=rank) if rank else None
    mixture = Mixture(temperature=temperature, teacher_weight=teacher_weight)
    tune(model, teacher, data, ctx, mixture=mixture, adapter=adapter, settings=training)


def local(job: Job) -> Iterator[Mapping[str, Any]]:
    """Run the processes of a step on this machine: where no executor is named, this is the one.

    They share the threads that the step has. On CUDA each has a device of its own.
    """
    from luthier_tune.launching import run

    yield from run(job)


@hookimpl
def luthier_executors() -> list[Callable[..., Any]]:
    """Give the executor."""
    return [local]


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuners."""
    return [lora, full, layers, ia3, soft_prompt, distill]
