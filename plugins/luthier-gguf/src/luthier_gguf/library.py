"""Whether llama.cpp is here, and how it gets here; imports nothing heavy, so that a plan can know."""

from __future__ import annotations

from importlib.util import find_spec

INSTALL = "pip install 'luthier-gguf[llama]' --extra-index-url https://abetlen.github.io/llama-cpp-python/whl/cpu"
"""The second index has llama-cpp-python compiled; from PyPI alone pip compiles it, for many minutes."""


def is_installed() -> bool:
    """Whether Python finds llama-cpp-python."""
    return find_spec("llama_cpp") is not None
