"""Whether there is the device that a run is to compute on. Light: planning loads it, a worker asks."""

from __future__ import annotations


def check_device(name: str) -> None:
    """Refuse a device that PyTorch does not find.

    Raises:
        InputError: if it is none (`gpu`), or this machine has none of that kind.
    """
    from luthier_models.loading import resolve_device

    resolve_device(name)
