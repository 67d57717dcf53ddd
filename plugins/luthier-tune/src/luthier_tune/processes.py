"""The processes of a training: joined where an executor, torchrun or `accelerate launch` started several."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from luthier import InputError
from luthier_models.loading import resolve_device
from luthier_tune.distributed import Finished

if TYPE_CHECKING:
    from luthier import Context

Tune = Callable[..., None]


def in_processes(tune: Tune) -> Tune:
    """Let a tuner's implementation be called in all processes of a training at once.

    It is called with one `ctx`, a `Context`. What comes after the training is left to the first of the processes.
    """
    signature = inspect.signature(tune)

    @functools.wraps(tune)
    def run(*positional: Any, **named: Any) -> None:
        ctx: Context = signature.bind(*positional, **named).arguments["ctx"]
        launched = distributed.is_torchelastic_launched()
        if ctx.processes > 1 or launched:
            _choose_device(ctx)
        if launched and not distributed.is_initialized():
            distributed.init_process_group(backend(ctx.device))
        with contextlib.suppress(Finished):
            tune(*positional, **named)

    return run


def backend(device: str) -> str:
    """What the processes talk through.

    Raises:
        InputError: if there is no such device.
    """
    # Weights that are offloaded are gathered on the CPU.
    return "cpu:gloo,cuda:nccl" if resolve_device(device).type == "cuda" else "gloo"


def _choose_device(ctx: Context) -> None:
    """Let each process on a machine have a CUDA device of its own, if they are to use any.

    Raises:
        InputError: if there are fewer devices than processes.
    """
    kind = resolve_device(ctx.device).type
    if kind == "mps":
        raise InputError("several processes are to train, and the device is mps", "Train in one, or on `cpu`.")
    if kind == "cuda" and ":" not in ctx.device:
        # Luthier's own executor, Ray and torchrun number the processes of a machine in the same way.
        torch.cuda.set_device(resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', ctx.rank)}"))
