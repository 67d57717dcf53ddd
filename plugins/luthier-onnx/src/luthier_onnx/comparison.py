"""An exported model beside PyTorch: the check that every exporter's result passes, in a process of its own.

    python -m luthier_onnx.comparison MODEL EXPORTED RESULT FORM [--longest TOKENS] [--lossy] [--graphs]

writes what was found to RESULT, as JSON; see `examine`. A process of its own,
since a model that only runs where it was exported is none; an exporter in an environment of its own calls it with the
main one's interpreter (`LUTHIER_PYTHON`). With `--graphs`, MODEL is itself an exported model, of the same form: what a
quantizer was given. Nothing of what is compared was in anybody's training data: the texts
are this module's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from luthier import LuthierError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Prompt
    from luthier_models.prompts import PromptEncoder
    from luthier_onnx.classifier import GraphClassifier
    from luthier_onnx.generator import GraphGenerator

LONGEST = 1024
"""Tokens of the longest text: as many as the model's context has, up to this."""

COMPLETION = 256
"""Tokens at the end of the longest text whose logits are compared: each has as many numbers as the vocabulary."""

NEW_TOKENS = 12
"""Tokens of a greedy completion."""

LOGIT_ERROR = 1e-3
"""What float32 may be off at any position: the difference by the logits' spread, both as root mean squares."""

GROSS_KL = 4.6
"""Nats a token, the logarithm of 100, beyond which a quantized model is taken for broken. The worst that still writes
text, int4 of a small model, has 0.5; of saturated integers perplexities of millions were seen, of layers that were
taken out without healing 12,000 where the model has 27: 6 nats and more."""

_LABEL_SPREAD = 1.0
"""Few labels may be equally likely, with no spread at all: what they are off by then counts in nats."""

_BATCH = 3
"""Texts of a padded batch; all are as long as the longest of it, so that many of them would cost much."""

_PAIRS = (
    ("Say hello.", "Hello, and welcome."),
    ("Why is the sky blue?", "Short waves of light are scattered more than long ones, so that the sky looks blue."),
    ("Öffne die Datei: 打开文件。", "Die Datei ist offen; 文件已打开 (3 of 14)."),
    ("def area(r):", "\n    return 3.14159 * r ** 2\n"),
)
_FILLER = (
    "On the first morning the ferry left late, for the fog lay on the water until nine, and nobody on board knew "
    "how far it was to the other side; 28 passengers, two bicycles and a crate of apples waited. "
)


class Asked(Protocol):
    """What is asked of a model here, of `luthier.Generator`'s."""

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterable[NDArray[np.float32]]:
        """The logits that predict each completion's tokens."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[str]:
        """The greedy completion of each prompt."""
        ...


@dataclass(frozen=True)
class Way:
    """An exported model, loaded to read texts in one way.

    Attributes:
        name: of the way, in words.
        model: what is asked.
        short: whether it is not asked for the last text, the long one.
    """

    name: str
    model: Asked
    short: bool = False


@dataclass(frozen=True)
class Texts:
    """What both models are asked.

    Attributes:
        prompts: short ones, and the last one near the model's context.
        completions: what follows each, teacher-forced; of a classifier, whose labels all have logits, any label.
        new_tokens: of a greedy completion.
    """

    prompts: list[str]
    completions: list[str]
    new_tokens: int


def held_out_texts(encoder: PromptEncoder, longest: int = LONGEST) -> Texts:
    """Texts that fit into the model's context, the last pair as long as it or as `longest`."""
    room = min(encoder.context or longest, longest)
    if encoder.labels:
        room = min(encoder.text_length or longest, longest)
        short = [text for pair in _PAIRS for text in pair]
        long = fitting(_filler(room), lambda text: len(encoder.document(text)), room)
        texts = [*(fitting(text, lambda cut: len(encoder.document(cut)), room) for text in short), long]
        return Texts(texts, [encoder.labels[0]] * len(texts), 1)
    new = max(1, min(NEW_TOKENS, room // 4))
    if encoder.encoder_decoder:
        # On each side; the decoder also reads its start token, and an end token is predicted, not read.
        prompt_room, completion_room = room, room - 1
        pairs = [*_PAIRS, (_filler(room), _filler(room))]
    else:
        completion_room = max(new, min(room // 4, COMPLETION))
        prompt_room = room - completion_room
        pairs = [*_PAIRS, (_filler(room), _PAIRS[1][1])]
    prompts = [fitting(prompt, lambda text: len(encoder.prompt(text)), prompt_room) for prompt, _ in pairs]
    completions = [fitting(text, lambda cut: len(encoder.completion(cut)), completion_room) for _, text in pairs]
    return Texts(prompts, completions, new)


def fitting(text: str, count: Callable[[str], int], room: int) -> str:
    """As much of a text's beginning as has at most `room` tokens; at least a character."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[:middle]) <= room else (low, middle - 1)
    return text[:low]


def _filler(tokens: int) -> str:
    # No token is shorter than a byte, and few are longer than a dozen.
    return _FILLER * (1 + 12 * tokens // len(_FILLER))


@dataclass(frozen=True)
class Findings:
    """How far an exported model is from PyTorch.

    Attributes:
        mean_kl: the mean over tokens of the divergence of what the exported model predicts, in nats.
        logit_error: at the worst position, the difference of the logits by their spread.
        top1_agreement: the part of positions where both find the same token most likely.
        greedy_agreement: the part of greedy completions that are equal, or differ first where PyTorch finds both
            tokens equally likely to `LOGIT_ERROR`.
        worst: where `logit_error` is, in words.
    """

    mean_kl: float
    logit_error: float
    top1_agreement: float
    greedy_agreement: float
    worst: str

    def problem(self, *, lossy: bool) -> str:
        """What is wrong with the exported model; empty if nothing is."""
        if lossy:
            broken = not self.mean_kl <= GROSS_KL
            return f"is broken by its quantization: mean KL {self.mean_kl:.3g} nats a token" if broken else ""
        if self.logit_error <= LOGIT_ERROR and self.greedy_agreement == 1:
            return ""
        return (
            f"does not compute what the model does in PyTorch: logits are off by up to {self.logit_error:.2g} of "
            f"their spread ({LOGIT_ERROR:g} is allowed) {self.worst}, mean KL {self.mean_kl:.3g} nats a token, "
            f"{self.greedy_agreement:.0%} of greedy completions agree"
        )


@dataclass(frozen=True)
class Expected:
    """What an exported model should say.

    Attributes:
        model: what said it: PyTorch, a `TransformersGenerator`, or another exported model.
        texts: that it was asked.
        logits: that predict each completion.
        greedy: the greedy completion of each prompt.
    """

    model: Any
    texts: Texts
    logits: list[NDArray[np.float32]]
    greedy: list[str]

    @classmethod
    def of(cls, model: Any, texts: Texts) -> Expected:
        """Ask a model."""
        logits = list(model.logits(texts.prompts, texts.completions))
        return cls(model, texts, logits, model.generate(texts.prompts, max_new_tokens=texts.new_tokens))


def compare(expected: Expected, ways: Iterable[Way]) -> Findings:
    """Ask an exported model what another was asked.

    Args:
        expected: what that one said.
        ways: the exported model, in each way that batches are made of texts.

    Raises:
        LuthierError: if the exported model gives no finite numbers, or not so many as it should.
    """
    reference, texts = expected.model, expected.texts
    kl: list[float] = []
    agreements: list[bool] = []
    same: list[bool] = []
    worst, where = 0.0, ""
    for way in ways:
        count = len(texts.prompts) - way.short
        prompts = texts.prompts[:count]
        found = list(way.model.logits(prompts, texts.completions[:count]))
        for theirs, ours, prompt in zip(expected.logits[:count], found, prompts, strict=True):
            if theirs.shape != ours.shape or not np.isfinite(ours).all():
                what = "numbers that are not finite" if theirs.shape == ours.shape else f"logits of shape {ours.shape}"
                raise LuthierError(f"it gives {what}, where {theirs.shape} is right")
            errors = _relative_errors(theirs, ours, _LABEL_SPREAD if reference.encoder.labels else 0)
            if errors.size and errors.max() >= worst:
                worst = float(errors.max())
                where = f"({way.name}, token {int(errors.argmax()) + 1} after {prompt[:24]!r})"
            kl += _divergences(theirs, ours).tolist()
            agreements += (theirs.argmax(1) == ours.argmax(1)).tolist()
        written = way.model.generate(prompts, max_new_tokens=texts.new_tokens)
        same += [
            mine == other or _is_tie(reference, prompt, mine)
            for prompt, other, mine in zip(prompts, expected.greedy[:count], written, strict=True)
        ]
        # A way may be a model of its own, and the next one another.
        del way, written, found
    return Findings(float(np.mean(kl)), worst, float(np.mean(agreements)), float(np.mean(same)), where)


def _relative_errors(theirs: NDArray[np.float32], ours: NDArray[np.float32], least: float = 0) -> NDArray[np.float64]:
    """For each position the difference of the logits by their spread: a shift of all of them changes nothing.

    Args:
        theirs: (positions, logits).
        ours: of the same shape.
        least: what the spread is taken for where it is less.
    """
    wide = theirs.astype(np.float64)
    difference = ours - wide
    spread = np.maximum(wide.std(axis=1), least)
    errors: NDArray[np.float64] = difference.std(axis=1) / np.where(spread > 0, spread, 1.0)
    return errors


def _divergences(theirs: NDArray[np.float32], ours: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each position the Kullback-Leibler divergence of our distribution from theirs, in nats."""
    log_p, log_q = _log_softmax(theirs), _log_softmax(ours)
    divergences: NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return divergences


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return normalised


def _is_tie(reference: Any, prompt: str, completion: str) -> bool:
    """Whether each token of a completion is, to the reference, as likely as the likeliest."""
    encoder = reference.encoder
    if encoder.labels:
        [logits] = reference.logits([prompt], [completion])
        chosen = logits[0, encoder.labels.index(completion)]
        return bool(logits.max() - chosen <= 2 * LOGIT_ERROR * max(logits.std(), _LABEL_SPREAD))
    given, targets = encoder.pair(prompt, completion)
    # What broken characters were decoded as can be more tokens than were written.
    length = max(len(given), len(targets)) if encoder.encoder_decoder else len(given) + len(targets)
    if encoder.context and length > encoder.context:
        return False
    [logits] = reference.logits([prompt], [completion])
    # The last is the end that the completion is closed with here, and it may have been cut off before.
    rows = logits[: len(targets) - 1].astype(np.float64)
    chosen = rows[np.arange(len(rows)), targets[:-1]]
    return bool((rows.max(axis=1, initial=-np.inf) - chosen <= 2 * LOGIT_ERROR * rows.std(axis=1)).all())


def load_exported(directory: Path, form: str, longest: int = LONGEST) -> Iterator[Way]:
    """An exported model by its runtime, with texts of so many tokens at most one by one, and side by side."""
    if form == "genai":
        from luthier_onnx.runtime import GenaiGenerator
        from luthier_onnx.side_by_side import SideBySide, carries_all_tokens

        one_by_one = GenaiGenerator(directory)
        longest = min(longest, one_by_one.context)
        yield Way("one by one", one_by_one)
        del one_by_one  # A model in memory, of which there is another now.
        if carries_all_tokens(directory):
            beside = SideBySide(directory, batch_size=_BATCH)
            yield Way("in a padded batch", beside, short=not beside.has_room_for(_BATCH * longest))
        return
    generator = _load_graphs(directory, form)
    yield Way("one by one", generator)
    # The same graphs: a model need not be in memory twice.
    yield Way("in a padded batch", generator.with_batches_of(_BATCH))


def _load_graphs(directory: Path, form: str) -> GraphClassifier | GraphGenerator:
    if form == "sequence-classifier":
        from luthier_onnx.classifier import GraphClassifier

        return GraphClassifier(directory, batch_size=1)
    from luthier_onnx.generator import GraphGenerator

    return GraphGenerator(directory, batch_size=1)


def _load_reference(model: Path, form: str, *, graphs: bool) -> Any:
    if graphs:
        return next(load_exported(model, form)).model
    # PyTorch takes seconds to load.
    if form == "sequence-classifier":
        from luthier_models.classifying import TransformersClassifier

        return TransformersClassifier(model, dtype="float32", batch_tokens=1)
    from luthier_models.runtime import TransformersGenerator

    return TransformersGenerator(model, dtype="float32", batch_size=1)


def examine(
    model: Path, exported: Path, form: str, *, lossy: bool = False, graphs: bool = False, longest: int = LONGEST
) -> dict[str, Any]:
    """Load an exported model, and compare it.

    Args:
        model: what it is compared with.
        exported: the directory of the exported model.
        form: of it.
        lossy: whether its numbers were rounded on purpose.
        graphs: whether `model` is an exported one, of the same form, and not one in PyTorch.
        longest: tokens of the longest text at most.

    Returns:
        The `metrics`, and a `problem`, empty if there is none; or why the model itself is `refused`, and the remedy.
    """
    try:
        reference = _load_reference(model, form, graphs=graphs)
        expected = Expected.of(reference, held_out_texts(reference.encoder, longest))
    except LuthierError as error:
        return {"metrics": {}, "problem": "", "refused": [error.message, error.remedy]}
    try:
        findings = compare(expected, load_exported(exported, form, longest))
    except (LuthierError, RuntimeError) as error:
        # What onnxruntime raises while a graph runs is a RuntimeError.
        return {"metrics": {}, "problem": f"does not run: {error}"}
    prefix = "" if graphs else "export_"
    names = ("mean_kl", "logit_error", "top1_agreement", "greedy_agreement")
    metrics = {f"{prefix}{name}": getattr(findings, name) for name in names}
    return {"metrics": metrics, "problem": findings.problem(lossy=lossy)}


def main() -> None:
    """Compare, and write what was found; see the module."""
    parser = argparse.ArgumentParser()
    for name in ("model", "exported", "result"):
        parser.add_argument(name, type=Path)
    parser.add_argument("form")
    parser.add_argument("--longest", type=int, default=LONGEST)
    parser.add_argument("--lossy", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    given = vars(parser.parse_args())
    result: Path = given.pop("result")
    result.write_text(json.dumps(examine(**given)), encoding="utf-8")


if __name__ == "__main__":
    main()
