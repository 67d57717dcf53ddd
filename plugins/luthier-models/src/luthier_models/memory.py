"""The memory that is free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes(device: torch.device) -> int:
    """The memory that this process may still take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[int]:
    """What the limits of a container leave, where there are any."""
    for limit, usage in _CGROUPS:
        try:
            allowed, used = Path(limit).read_text(encoding="ascii"), Path(usage).read_text(encoding="ascii")
        except OSError:
            continue
        if allowed.strip().isdigit():
            yield max(0, int(allowed) - int(used))
