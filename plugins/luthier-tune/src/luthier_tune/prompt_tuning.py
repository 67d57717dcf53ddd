"""A soft prompt (Lester et al., 2021, arXiv:2104.08691): learnt embeddings in front of every prompt.

They become rows of the model's embedding, for tokens of their own, and the chat template writes these tokens
before all else. So the result is a plain model that every runtime and exporter takes, and that reads its soft
prompt wherever it reads its template.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PromptTuningConfig
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import nn
from torch.nn.functional import linear

from luthier import InputError
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder, load_tokenizer, read_context, read_end_tokens
from luthier_tune.adapter_files import write_config
from luthier_tune.examples import random_for
from luthier_tune.lean import lean_or_plain
from luthier_tune.loss import CompletionLoss
from luthier_tune.options import no_template
from luthier_tune.processes import in_processes
from luthier_tune.task import Student, check_start, copy_companions, fit, read_examples

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from luthier import Context, Dataset, Model
    from luthier_tune.options import Training


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """The soft prompt and how it starts; see `luthier_tune.soft_prompt`."""

    tokens: int
    text: str = ""


@in_processes
def tune(model: Model, data: Dataset, ctx: Context, prompt: PromptSettings, settings: Training) -> None:
    """Train a soft prompt on the data, and write the model that reads it to `ctx.output`.

    Raises:
        InputError: if the model has no chat template or a soft prompt already, the budget, the data or the device
            cannot be used, or training diverges.
    """
    check_start(settings, ctx)
    tokenizer = load_tokenizer(model.path)
    start = initial_tokens(tokenizer, prompt, ctx.seed)
    first = add_soft_tokens(tokenizer, prompt.tokens)
    encoder = PromptEncoder(tokenizer, read_end_tokens(model.path), read_context(model.path))
    train, valid = read_examples(data, encoder, settings, ctx.seed)
    student = prompted_student(model, tokenizer, first, start, ctx)
    fit(student, CompletionLoss(student.packed), train, valid, settings=settings, ctx=ctx)
    student.write_to(ctx.output, settings)


def initial_tokens(tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings, seed: int) -> list[int]:
    """The tokens whose embeddings the soft prompt starts as: the text's, again and again, or any of the vocabulary."""
    if prompt.text.strip():
        ids = list(tokenizer(prompt.text, add_special_tokens=False, verbose=False)["input_ids"])
        return [ids[place % len(ids)] for place in range(prompt.tokens)]
    usable = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    return random_for(seed, "soft prompt").choices(usable, k=prompt.tokens)


def add_soft_tokens(tokenizer: PreTrainedTokenizerBase, count: int) -> int:
    """Give the tokenizer tokens for a soft prompt and let its template write them first; gives the first's id.

    Raises:
        InputError: if there is no template, or there are such tokens already.
    """
    if not tokenizer.chat_template:
        raise no_template()
    names = [f"<|soft_{number}|>" for number in range(count)]
    if names[0] in tokenizer.get_vocab():
        raise InputError(
            "the model has a soft prompt already", "Tune the model that it was made from, or use another tuner."
        )
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    template = tokenizer.chat_template
    soft = "".join(names)
    tokenizer.chat_template = (
        {name: soft + text for name, text in template.items()} if isinstance(template, dict) else soft + template
    )
    return tokenizer.get_vocab()[names[0]]


def prompted_student(
    model: Model, tokenizer: PreTrainedTokenizerBase, first: int, start: list[int], ctx: Context
) -> Student:
    """The model with a soft prompt to be trained, of the tokens from `first` on.

    Raises:
        InputError: if the device cannot be used.
    """
    base: Any = load_causal_lm(model.path, device=ctx.device)
    base.requires_grad_(False)
    # Rows may be there already: many models have more than their tokenizer has tokens.
    rows = max(base.get_input_embeddings().weight.shape[0], first + len(start))
    base.resize_token_embeddings(rows, mean_resizing=False)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    soft = nn.Parameter(embedding.weight[start].detach().float())
    parameters = {"soft_prompt": soft}
    output = soft
    if head.weight is not embedding.weight:
        # The tokens of the prompt are never an answer: their rows learn to be as unlikely as they can be.
        output = nn.Parameter(head.weight[:first].detach().float().mean(0, keepdim=True).repeat(len(start), 1))
        parameters["soft_prompt_output"] = output
    base.set_input_embeddings(_Embedding(embedding, soft, first))
    base.set_output_embeddings(_Head(head, output, first))

    def write(directory: Path) -> None:
        base.set_input_embeddings(embedding)
        base.set_output_embeddings(head)
        with torch.no_grad():
            for layer, values in ((embedding, soft), (head, output)):
                layer.weight[first : first + len(start)] = values.to(layer.weight.dtype)
        base.save_pretrained(directory)
        copy_companions(model.path, directory)
        tokenizer.save_pretrained(directory)
        save_prompt(soft, base, directory / "adapter", base_model=model.hash)

    return Student(lean_or_plain(base, ctx.log), parameters, write)


class _Embedding(nn.Module):
    """An embedding with some rows of its own, (soft tokens, width), from the token `first` on."""

    def __init__(self, embedding: nn.Embedding, soft: nn.Parameter, first: int) -> None:
        super().__init__()
        self.embedding, self.soft, self.first = embedding, soft, first

    @property
    def weight(self) -> Tensor:
        """The rows as they were: the size of the vocabulary is asked of them."""
        return self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """The embeddings of tokens."""
        embedded: Tensor = self.embedding(ids)
        place = ids - self.first
        inside = (place >= 0) & (place < len(self.soft))
        soft = self.soft[place.clamp(0, len(self.soft) - 1)].to(embedded.dtype)
        return torch.where(inside[..., None], soft, embedded)


class _Head(nn.Module):
    """An output layer with some rows of its own, (soft tokens, width), from the token `first` on."""

    def __init__(self, head: nn.Linear, soft: nn.Parameter, first: int) -> None:
        super().__init__()
        self.head, self.soft, self.first = head, soft, first

    @property
    def weight(self) -> Tensor:
        """The rows as they were."""
        return self.head.weight

    def forward(self, states: Tensor) -> Tensor:
        """The logits of states."""
        logits: Tensor = self.head(states)
        soft = linear(states, self.soft.to(states.dtype))
        return torch.cat([logits[..., : self.first], soft, logits[..., self.first + len(self.soft) :]], dim=-1)


def save_prompt(soft: Tensor, base: PreTrainedModel, directory: Path, *, base_model: str) -> None:
    """Write the soft prompt as peft does for prompt tuning of the model as it was."""
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=len(soft),
        token_dim=soft.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=base.config.num_attention_heads,
        num_layers=base.config.num_hidden_layers,
    )
    directory.mkdir(parents=True, exist_ok=True)
    save_file({"prompt_embeddings": soft.detach().cpu()}, directory / "adapter_model.safetensors", {"format": "pt"})
    write_config(dict(config.to_dict()), directory, base_model=base_model)
