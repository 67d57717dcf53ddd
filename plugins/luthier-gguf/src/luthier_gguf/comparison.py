"""A GGUF file, run by llama.cpp or read back by transformers, beside PyTorch: the check that an export passes.

    python -m luthier_gguf.comparison MODEL EXPORTED RESULT READER --longest TOKENS [--lossy]

in a process of its own, as `luthier_models.verification` starts it. READER is `llama.cpp` or `transformers`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from luthier import LuthierError, PluginError
from luthier_gguf.families import FAMILIES
from luthier_gguf.files import find_gguf
from luthier_models.loading import load_causal_lm
from luthier_models.one_by_one import threads_from_environment
from luthier_models.prompts import PromptEncoder
from luthier_models.streams import CHUNK

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedConfig, PreTrainedModel

    from luthier_gguf.llama import LlamaModel

Logits = Callable[[Sequence[int]], "NDArray[np.float32]"]
"""A model's logits at each of a text's tokens: (tokens, vocabulary)."""

LOGIT_ERROR = 1e-2
"""What a file that nothing was rounded for, or that has float16, may be off at any position: the difference of the
logits by their spread, both as root mean squares."""

GROSS_KL = 4.6
"""Nats a token, the logarithm of 100, beyond which a quantized model is taken for broken."""

_COMPARED = 256
"""Tokens at the end of a text whose logits are compared: those of 1,024 take 200 MB for a vocabulary of 50,000."""

_GREEDY = 12  # tokens that llama.cpp writes after each text
_TEXTS = (
    ("Say hello.", "Hello, and welcome."),
    ("Why is the sky blue?", "Short waves of light are scattered more than long ones, so that the sky looks blue."),
    ("Öffne die Datei: 打开文件。", "Die Datei ist offen; 文件已打开 (3 of 14).\n\n  Don't  wait   2026!"),
    ("def area(r):", "\n    return 3.14159 * r ** 2\n\n\nprint(area(1234567))\t# 😀"),
)


def compare_file(model: Path, file: Path, *, by_llama_cpp: bool, lossy: bool, longest: int) -> dict[str, Any]:
    """Compare a GGUF file with the model that it was written from.

    llama.cpp runs it: logits, greedy completions, and how it splits texts into tokens. Or transformers reads the
    weights, and is told the settings: of those it knows too few in GGUF files (version 5.23 reads no scaling of rotary
    positions, no `head_dim` of Qwen 3 and no biases). Of architectures that it reads no files of, a warning says so.

    Args:
        model: what was exported.
        file: what was written.
        by_llama_cpp: which of the two.
        lossy: whether weights were rounded to less than float16: then only a gross difference is a problem.
        longest: tokens of the longest text, where the model's context is longer.

    Returns:
        `metrics`: `export_mean_kl` in nats a token; `export_logit_error`, see `LOGIT_ERROR`; of llama.cpp
        `export_greedy_agreement`, the part of the completions whose every token PyTorch finds likeliest, or as likely
        to within that error. `problem`, empty if there is none. `warning`, where nothing could be compared.

    Raises:
        LuthierError: if the file cannot be read, has another tokenizer, or gives numbers that are not finite.
    """
    encoder = PromptEncoder.from_directory(model)
    source = load_causal_lm(model, dtype="float32")
    context = source.config.max_position_embeddings
    new = min(_GREEDY, context // 2)
    texts = held_out(encoder, min(context - new, longest))
    metrics: dict[str, float] = {}
    if by_llama_cpp:
        loaded = _load_by_llama_cpp(file)
        _check_tokens(loaded, encoder)
        kl, off = compare(logits_of(source), _logits_by(loaded), texts)
        metrics["export_greedy_agreement"] = _greedy_agreement(logits_of(source), loaded, texts, new)
    else:
        read = _load_by_transformers(file, source.config)
        if read is None:
            kind = source.config.model_type
            why = f"transformers reads no GGUF file of a {kind}, and llama.cpp is not installed"
            return {"metrics": {}, "problem": "", "warning": f"{file.name} was not read back: {why}"}
        kl, off = compare(logits_of(source), logits_of(read), texts)
    greedy = metrics.get("export_greedy_agreement", 1.0)
    metrics |= {"export_mean_kl": kl, "export_logit_error": off}
    if kl <= GROSS_KL if lossy else off <= LOGIT_ERROR and greedy == 1:
        return {"metrics": metrics, "problem": ""}
    reader = "run by llama.cpp" if by_llama_cpp else "read back by transformers"
    problem = (
        f"is another one: {reader}, its logits are off by up to {off:.2g} of their spread, mean KL {kl:.3g} nats a "
        f"token, {greedy:.0%} of greedy completions agree"
    )
    return {"metrics": metrics, "problem": problem}


def _load_by_llama_cpp(file: Path) -> LlamaModel:
    from luthier_gguf.llama import LlamaModel

    return LlamaModel(file, threads=threads_from_environment(), cache="f32")


def _check_tokens(loaded: LlamaModel, encoder: PromptEncoder) -> None:
    """Refuse a file whose texts become other tokens in llama.cpp, as its clients would have it."""
    for text in (text for pair in _TEXTS for text in pair):
        ours, theirs = encoder.tokenizer(text, add_special_tokens=False)["input_ids"], loaded.tokenize(text)
        if list(ours) != theirs:
            raise PluginError(
                f"llama.cpp splits {text!r} into other tokens than the model's tokenizer: {theirs}, not {ours}",
                "Nothing was kept. Report this to luthier-gguf, with the model's name.",
            )


def _logits_by(loaded: LlamaModel) -> Logits:
    def read(ids: Sequence[int]) -> NDArray[np.float32]:
        session = loaded.session(len(ids))
        parts = []
        for start in range(0, len(ids), CHUNK):
            chunk = np.asarray(ids[start : start + CHUNK], np.int32)
            session.read(chunk, len(chunk))
            parts.append(session.logits())
        return np.concatenate(parts)

    return read


def _greedy_agreement(expected: Logits, loaded: LlamaModel, texts: Sequence[Sequence[int]], new: int) -> float:
    """The part of llama.cpp's greedy completions, of `new` tokens each, that PyTorch would write, but for ties."""
    agreeing = 0
    for ids in texts:
        session = loaded.session(len(ids) + new)
        for start in range(0, len(ids), CHUNK):
            session.read(np.asarray(ids[start : start + CHUNK], np.int32), 1)
        written = [session.write() for _ in range(new)]
        rows = expected([*ids, *written[:-1]])[len(ids) - 1 :].astype(np.float64)
        behind = rows.max(axis=1) - rows[np.arange(new), written]
        agreeing += bool((behind <= 2 * LOGIT_ERROR * rows.std(axis=1)).all())
    return agreeing / len(texts)


def _load_by_transformers(file: Path, config: PreTrainedConfig) -> PreTrainedModel | None:
    """None if transformers does not read such files."""
    known = _as_read(config)
    if known is None:
        return None
    return load_causal_lm(file.parent, dtype="float32", gguf_file=file.name, config=known)


def _as_read(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """The configuration by the name that the file has for the architecture; None if transformers does not read it."""
    name = gguf.MODEL_ARCH_NAMES[FAMILIES[config.model_type].arch]
    if name not in GGUF_SUPPORTED_ARCHITECTURES:
        return None
    if name == config.model_type:
        return config
    settings = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
    return AutoConfig.for_model(name, **settings)


def logits_of(model: PreTrainedModel) -> Logits:
    """The logits of a model in PyTorch."""

    def read(ids: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: Any = model(torch.tensor([list(ids)])).logits[0].float().numpy()
        return np.asarray(found, np.float32)

    return read


def held_out(encoder: PromptEncoder, longest: int) -> list[list[int]]:
    """The tokens of some texts, as the model is asked, and one of `longest` tokens: those again and again."""
    short = [[*encoder.prompt(prompt), *encoder.completion(completion)][:longest] for prompt, completion in _TEXTS]
    return [*short, list(islice(cycle(chain.from_iterable(short)), longest))]


def compare(expected: Logits, found: Logits, texts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """The mean Kullback-Leibler divergence in nats a token, and the worst relative error of the logits.

    Raises:
        PluginError: if the numbers are not finite.
    """
    divergences: list[float] = []
    worst = 0.0
    for ids in texts:
        theirs, ours = (read(ids)[-_COMPARED:].astype(np.float64) for read in (expected, found))
        if not np.isfinite(ours).all():
            raise PluginError("the GGUF file gives numbers that are not finite", "Try another precision.")
        spread = theirs.std(axis=1)
        errors = (ours - theirs).std(axis=1) / np.where(spread > 0, spread, 1.0)
        worst = max(worst, float(errors.max()))
        log_p, log_q = _log_softmax(theirs), _log_softmax(ours)
        divergences += (np.exp(log_p) * (log_p - log_q)).sum(axis=1).tolist()
    return float(np.mean(divergences)), worst


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and write what was found; see the module."""
    parser = argparse.ArgumentParser()
    for name in ("model", "exported", "result"):
        parser.add_argument(name, type=Path)
    parser.add_argument("reader", choices=("llama.cpp", "transformers"))
    parser.add_argument("--longest", type=int, required=True)
    parser.add_argument("--lossy", action="store_true")
    given = parser.parse_args(arguments)
    try:
        file = find_gguf(given.exported)
        by_llama_cpp = given.reader == "llama.cpp"
        record = compare_file(given.model, file, by_llama_cpp=by_llama_cpp, lossy=given.lossy, longest=given.longest)
    except LuthierError as error:
        record = {"metrics": {}, "problem": f"cannot be used: {error.message}"}
    given.result.write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
