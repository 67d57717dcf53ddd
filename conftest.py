"""What holds for every test: each of pytest's processes computes with one thread."""

from __future__ import annotations

import os

# Before anything imports torch, which reads it once. `make test` has a process for each of two cores: with two threads
# in each, those that spin at a barrier starve the others. A test of tuning was seen to take 49 s so, and 0.3 s alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")
