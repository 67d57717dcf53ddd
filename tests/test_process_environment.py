"""What workers are started with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.process_environment import THREAD_VARIABLES, worker_environment


def test_every_library_gets_the_worker_s_threads_whatever_was_set() -> None:
    environment = worker_environment(3, {"OMP_NUM_THREADS": "8", "HOME": "/home/somebody"})
    assert {environment[name] for name in THREAD_VARIABLES} == {"3"}
    assert environment["HOME"] == "/home/somebody"


def test_what_the_user_chose_stands() -> None:
    given = {"OMP_WAIT_POLICY": "active", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "TOKENIZERS_PARALLELISM": "true"}
    assert given.items() <= worker_environment(1, given).items()


def test_huge_pages_are_added_to_other_tunables() -> None:
    environment = worker_environment(1, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=4"})
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.tcache_count=4:glibc.malloc.hugetlb=1"
    assert worker_environment(1, {})["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has transparent huge pages")
def test_a_worker_s_memory_is_in_huge_pages(tmp_path: Path) -> None:
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not switch.exists() or "[madvise]" not in switch.read_text(encoding="ascii"):
        pytest.skip("the kernel gives none, or gives them unasked")
    # Not an array: numpy asks for huge pages by itself.
    program = "block = b'1' * 2**28; print(open('/proc/self/smaps_rollup').read())"
    kilobytes = []
    for environment in (dict(os.environ), worker_environment(1)):
        command = [sys.executable, "-c", program]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        kilobytes += re.findall(r"AnonHugePages:\s+(\d+)", found.stdout)
    before, after = map(int, kilobytes)
    assert after > before + 200_000
