"""The environment variables that a process which computes is started with."""

from __future__ import annotations

import os
from collections.abc import Mapping

THREAD_VARIABLES = (
    "LUTHIER_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)
_TUNABLES, _HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def worker_environment(threads: int, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a worker inherits, and what is set for it; a choice of the user's stands, but for the threads.

    For plugins that start processes of their own, too: pass it to `subprocess` as `env`.

    Args:
        threads: of every library that computes.
        given: the variables to begin with; by default those of this process.
    """
    environment = {**(os.environ if given is None else given), **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin at OpenMP's barriers starve each other as soon as another process wants a core:
    # tuning was seen to fall from 83 to 3 tokens a second. Sleeping costs microseconds a barrier.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    # Writing a token reads every weight once; in pages of 4 KB, much of the time goes into finding them. glibc, from
    # 2.35 on, asks the kernel for huge pages if told so; other libraries ignore it. See bench_pages.py.
    tunables = environment.get(_TUNABLES, "")
    if _HUGE_PAGES not in tunables:
        environment[_TUNABLES] = ":".join(filter(None, (tunables, f"{_HUGE_PAGES}=1")))
    return environment
