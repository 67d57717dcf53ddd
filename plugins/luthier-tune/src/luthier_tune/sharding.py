"""Fully sharded data parallelism (FSDP): each process keeps a part of every weight, its gradient and its moments.

Zhao et al., 2023 (arXiv:2304.11277), in torch's second version, `fully_shard`, as accelerate applies it. What is cut
is a twin of the model. The model itself stays whole on the CPU of the first process, gets what was trained in the
end, and is written as ever.
"""

from __future__ import annotations

import copy
import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType, fsdp2_apply_ac, fsdp2_canonicalize_names, fsdp2_prepare_model
from torch import nn

from luthier import InputError
from luthier_models.loading import resolve_device
from luthier_models.packing import PackedModel
from luthier_tune import options
from luthier_tune.distributed import Group, part_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from luthier import Context
    from luthier_tune.options import Fsdp
    from luthier_tune.task import Student


def loading_device(settings: Fsdp | None, ctx: Context) -> str:
    """Where a model is loaded: where it is trained, but whole on the CPU if it is to be cut."""
    return "cpu" if settings else ctx.device


def check_sharding(settings: Fsdp | None, ctx: Context) -> None:
    """Refuse to cut a model where that cannot be done; before anything is read.

    Raises:
        InputError: if the device is no GPU, or there is one process.
    """
    if settings is None:
        return
    device = resolve_device(ctx.device)
    if device.type not in options.SHARDED_ON:
        raise InputError(
            f"`fsdp` shards a model over GPUs, and the device is {device.type}",
            "Leave out `fsdp`: `processes` alone trains on CPUs; or run where PyTorch finds CUDA devices.",
        )
    if Group.current().size == 1:
        raise InputError("`fsdp` shards a model over processes, and there is one", "Raise `processes`.")


def sharded(student: Student, settings: Fsdp | None, ctx: Context) -> Student:
    """The student whose model is cut, in all processes at once; itself, without settings.

    Raises:
        InputError: if the model is no such one, or has no layers as the settings name them.
    """
    if settings is None:
        return student
    if not isinstance(student.packed, PackedModel):
        raise InputError("`fsdp` shards language models that are decoders, and this one is none", "Leave it out.")
    group = Group.current()
    device = resolve_device(ctx.device)
    isolates = student.packed.isolates_documents  # measured while the model is whole
    twin = _cut(_twin(student.packed.model), settings, device, ctx)
    names = {id(parameter): name for name, parameter in student.parameters.items()}
    ours = {place: names[id(each)] for place, each in student.packed.model.named_parameters() if id(each) in names}
    cut: Mapping[str, Parameter] = fsdp2_canonicalize_names(dict(twin.named_parameters()))
    ctx.log.info(
        "the model is sharded over %d processes: %d of its %d bytes are in this one",
        group.size,
        sum(part_of(each).nbytes for each in cut.values()),
        sum(each.nbytes for each in cut.values()),
    )
    return replace(
        student,
        packed=_ShardedModel(twin, device, isolates=isolates),
        parameters={name: cut[place] for place, name in ours.items()},
        # In the other processes nothing holds the whole model any longer.
        whole=student.parameters if group.leads else {},
        write=student.write if group.leads else _never_written,
    )


def _never_written(directory: object) -> None:
    raise AssertionError("only the first process writes the model")


def _twin(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with tensors of its own, which share their numbers with the model's until they are moved."""
    tensors: dict[int, Any] = {id(each): nn.Parameter(each.detach(), each.requires_grad) for each in model.parameters()}
    tensors |= {id(each): each.detach() for each in model.buffers()}
    return copy.deepcopy(model, tensors)


def _cut(model: PreTrainedModel, settings: Fsdp, device: torch.device, ctx: Context) -> PreTrainedModel:
    given = {name: value for name, value in asdict(settings).items() if value not in (None, [])}
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False, **given)
    for name, value in {"RANK": ctx.rank, "LOCAL_RANK": ctx.rank, "WORLD_SIZE": ctx.processes}.items():
        os.environ.setdefault(name, str(value))  # accelerate believes what torchrun says, not torch's group
    accelerator = Accelerator(fsdp_plugin=plugin, cpu=device.type == "cpu")
    if accelerator.distributed_type is not DistributedType.FSDP:
        # accelerate shards on GPUs only. torch can on CPUs too, which is how this is tested without any.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    try:
        plugin.set_auto_wrap_policy(model)
    except ValueError as error:
        kinds = sorted({type(module).__name__ for module in model.modules()})
        raise InputError(
            f"fsdp.transformer_cls_names_to_wrap: {error}", f"The model has modules of the classes {', '.join(kinds)}."
        ) from error
    if settings.activation_checkpointing:
        model = fsdp2_apply_ac(accelerator, model)
    cut: PreTrainedModel = fsdp2_prepare_model(accelerator, model)
    return cut


class _ShardedModel(PackedModel):
    """A packed model that is cut: its weights are gathered only where the whole model, or a layer of it, is called.

    So logits come from the model itself, and all targets of a row have theirs at once.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device, *, isolates: bool) -> None:
        super().__init__(model)
        self._device = device
        self.__dict__ |= {"isolates_documents": isolates, "takes_segments": False, "head": None}  # not to be measured

    @property
    def device(self) -> torch.device:
        """Where it computes: weights that are offloaded are elsewhere."""
        return self._device
