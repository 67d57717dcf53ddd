"""The `transformers` runtime: PyTorch, batched, the reference for every export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from luthier import InputError, Score
from luthier_models.batching import batched
from luthier_models.loading import load_by_config
from luthier_models.prompts import PromptEncoder
from luthier_models.streams import SessionStreaming
from luthier_models.texts import TextEncoder, cut_at_stop, joined, report_progress
from luthier_models.torch_session import TorchSession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context, Prompt
    from luthier_models.batching import Batch
    from luthier_models.packing import Pair

# Logits are computed for so many targets at once: 256 of a vocabulary of 50,000 take 50 MB.
_HEAD_CHUNK = 256
# How a decoder beside an encoder begins, and what it never writes: part of what the model is.
_DECODER_SETTINGS = ("decoder_start_token_id", "forced_bos_token_id", "bad_words_ids")
# A stop string lies within so many of the newest tokens; one token is at least one byte of it.
_STOP_TAIL = 8


class TransformersGenerator(SessionStreaming):
    """A model directory loaded with transformers; a `luthier.Generator` and, but for encoder-decoders, `Streaming`.

    Args:
        directory: the model.
        ctx: its `device` is where the model runs; progress goes to it.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        batch_size: prompts that are completed together.
        batch_tokens: tokens that are scored together.

    Raises:
        InputError: if the model cannot be loaded, or the device is not there.
    """

    def __init__(
        self,
        directory: Path,
        ctx: Context | None = None,
        *,
        dtype: str = "auto",
        batch_size: int = 16,
        batch_tokens: int = 256,
    ) -> None:
        self._ctx = ctx
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self.encoder = PromptEncoder.from_directory(directory)
        self.model: Any = load_by_config(directory, device=ctx.device if ctx else "cpu", dtype=dtype)
        self._batched = batched(self.model)
        # Greedy means greedy: a model's own sampling settings and penalties do not apply.
        settings: Any = GenerationConfig
        own = self.model.generation_config
        self.model.generation_config = settings(
            do_sample=False,
            eos_token_id=sorted(self.encoder.end_tokens) or None,
            pad_token_id=self._padding,
            **{name: getattr(own, name) for name in _DECODER_SETTINGS if self.encoder.encoder_decoder},
        )
        self._context = int(getattr(self.model.config, "max_position_embeddings", 0) or 0)
        self._texts = TextEncoder(self.encoder, self._context)

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """The greedy completion of each prompt; see `luthier.Generator`."""
        encoded = self._texts.prompts(prompts, max_new_tokens)
        # Similar lengths together waste the least padding; the longest first.
        order = sorted(range(len(encoded)), key=lambda number: (-len(encoded[number]), number))
        texts = [""] * len(encoded)
        for start in range(0, len(order), self._batch_size):
            members = order[start : start + self._batch_size]
            batch = self._complete([encoded[number] for number in members], max_new_tokens, stop)
            for number, text in zip(members, batch, strict=True):
                texts[number] = text
            report_progress(self._ctx, start + len(members), len(order))
        return texts

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Score]:
        """Log-probabilities of each completion's tokens; see `luthier.Generator`."""
        windows = self._texts.windows(prompts, completions)
        return joined(windows, self._score_pairs([pair for windows_of_text in windows for pair in windows_of_text]))

    def _score_pairs(self, pairs: Sequence[Pair]) -> list[Score]:
        scored = [number for number, (given, targets) in enumerate(pairs) if given and targets]
        scores = [Score(())] * len(pairs)
        done = len(pairs) - len(scored)
        # A prompt with each of several labels after it is read once.
        repeated = len({tuple(pairs[number][0]) for number in scored}) < len(scored)
        shared = repeated and self._batched.takes_segments
        for members, row in self._batched.rows([pairs[number] for number in scored], self._batch_tokens, shared=shared):
            with torch.inference_mode():
                parts = []
                for logits, labels in self._head_chunks(row):
                    chosen = logits.gather(1, labels[:, None])[:, 0]
                    parts.append(chosen - logits.logsumexp(1))
                split = torch.split(torch.cat(parts), list(row.sizes))
            for member, values in zip(members, split, strict=True):
                scores[scored[member]] = Score(tuple(values.tolist()))
            done += len(members)
            report_progress(self._ctx, done, len(pairs))
        return scores

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterable[NDArray[np.float32]]:
        """The logits that predict each completion's tokens, pair by pair; see `luthier.Generator`.

        Pairs are worked on in their order, a few at a time, so that memory stays bounded.
        """
        pairs = self._texts.beginnings(prompts, completions)
        vocabulary = int(self.model.get_output_embeddings().weight.shape[0])
        for group in _consecutive(pairs, self._batch_tokens if self._batched.isolates_documents else 0):
            found: dict[int, NDArray[np.float32]] = {}
            usable = [number for number, (given, targets) in enumerate(group) if given and targets]
            for members, row in self._batched.rows([group[number] for number in usable], self._batch_tokens):
                with torch.inference_mode():
                    # Converted chunk by chunk: the whole in float32 exists once.
                    whole = np.concatenate([part.cpu().numpy() for part, _ in self._head_chunks(row)])
                borders = np.cumsum(row.sizes)[:-1]
                for member, values in zip(members, np.split(whole, borders), strict=True):
                    found[usable[member]] = values
            for number in range(len(group)):
                yield found.pop(number, np.zeros((0, vocabulary), np.float32))

    @property
    def context(self) -> int:
        """The tokens that the model can read and write in all, or on each side; 0 where it sets no limit."""
        return self._context

    def _start_beside(self, max_length: int) -> TorchSession:
        if self.encoder.encoder_decoder:
            raise InputError(
                "the runtime transformers does not write token by token with an encoder-decoder",
                "Export it with `export: dynamo`: the runtime onnxruntime does.",
            )
        return TorchSession(self.model)

    @property
    def _padding(self) -> int:
        tokenizer = self.encoder.tokenizer
        if tokenizer.pad_token_id is not None:
            return int(tokenizer.pad_token_id)
        return min(self.encoder.end_tokens, default=0)

    def _head_chunks(self, row: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Float32 logits of the row's targets with their labels, a few targets at a time."""
        head = self._batched.head
        if head is None:
            whole = self._batched.logits(row).float()
            yield whole, row.labels
            return
        hidden = self._batched.hidden(row)
        for start in range(0, len(hidden), _HEAD_CHUNK):
            yield head(hidden[start : start + _HEAD_CHUNK]).float(), row.labels[start : start + _HEAD_CHUNK]

    def _complete(self, prompts: list[list[int]], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self._padding)
        mask = torch.zeros_like(ids)
        for number, prompt in enumerate(prompts):
            # A decoder goes on at the prompt's end; an encoder counts positions from its start.
            first = 0 if self.encoder.encoder_decoder else width - len(prompt)
            ids[number, first : first + len(prompt)] = torch.tensor(prompt, dtype=ids.dtype)
            mask[number, first : first + len(prompt)] = 1
        # What is generated follows the prompt; a decoder of its own begins with its start token.
        start = 1 if self.encoder.encoder_decoder else width
        criteria = StoppingCriteriaList([_StopStrings(self.encoder, start, stop)] if stop else [])
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=max_new_tokens,
                stopping_criteria=criteria,
            )
        return [cut_at_stop(self.encoder.decode(row), stop) for row in output[:, start:].tolist()]


class _StopStrings(StoppingCriteria):
    """Ends a sequence once its completion contains a stop string."""

    def __init__(self, encoder: PromptEncoder, start: int, stop: Sequence[str]) -> None:
        self._encoder = encoder
        self._start = start
        self._stop = stop
        self._tail = _STOP_TAIL + max(len(text.encode()) for text in stop)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        first = max(self._start, input_ids.shape[1] - self._tail)
        texts = [self._encoder.decode(row) for row in input_ids[:, first:].tolist()]
        return torch.tensor([any(text in tail for text in self._stop) for tail in texts], device=input_ids.device)


def _consecutive(pairs: Sequence[Pair], limit: int) -> Iterator[list[Pair]]:
    """Neighbouring pairs in groups of at most `limit` tokens, or of one pair."""
    group: list[Pair] = []
    used = 0
    for given, targets in pairs:
        size = len(given) + len(targets)
        if group and used + size > limit:
            yield group
            group, used = [], 0
        group.append((given, targets))
        used += size
    if group:
        yield group
