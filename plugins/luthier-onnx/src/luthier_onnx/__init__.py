"""ONNX: the exporters `genai` and `dynamo`, and the runtimes `onnxruntime-genai` and `onnxruntime`.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from luthier import Location, component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Generator, Known, Model, OnnxModel


def check_architecture(_configuration: Mapping[str, Any], *, model: Known) -> None:
    """Refuse what onnxruntime-genai's builder does not know, where it is known what the model will be.

    Raises:
        InputError: naming exporters that know it.
    """
    architecture = model.traits.get("architecture")
    if architecture is not None:
        from luthier_onnx.routes import check_known

        remedy = "Write `export: dynamo`, which knows it; or `export: gguf` (luthier-gguf) where llama.cpp does."
        check_known(architecture, unplaced=model.traits.get("positions") == "none", remedy=remedy)


@component(gives="genai", needs={"model": {"causal-lm"}}, check_inputs=check_architecture)
def genai(
    model: Model,
    ctx: Context,
    *,
    adapter: Literal["merged", "apart"] = "merged",
    verified_tokens: Annotated[int, Ge(64)] = 1024,
) -> None:
    """Export a causal language model to ONNX with onnxruntime-genai's model builder, for the CPU.

    The result has one graph with its weights, the tokenizer, the chat template and `genai_config.json`. Weights are
    float32, for `quantize: int8` or `int4` to make smaller; those that a `quantize` step chose integers for before
    the export are packed as exactly these integers. Before it counts as exported it is
    compared with PyTorch in a process of its own, as `dynamo` is; with chosen integers it fails there only if it is
    broken.

    Args:
        adapter: whether what `tune: lora` learnt stays merged into the weights, or becomes a file of its own beside
            the graph of the model as it was before (`adapter.onnx_adapter`): then the runtime can exchange it, and
            models that were tuned from the same one share their weights. A later `quantize` leaves it as it is.
        verified_tokens: of the longest text that is compared, as far as the model's context goes. More of them show
            whether positions far out are right too, and take time that grows faster than they do.
    """
    from luthier_onnx.export import export_genai

    export_genai(model.path, ctx, adapter_apart=adapter == "apart", verified_tokens=verified_tokens)


@component(
    gives={"causal-lm": "decoder", "seq2seq-lm": "encoder-decoder", "sequence-classifier": "sequence-classifier"},
    needs={"model": {"causal-lm", "seq2seq-lm", "sequence-classifier"}},
)
def dynamo(model: Model, ctx: Context, *, verified_tokens: Annotated[int, Ge(64)] = 1024) -> None:
    """Export a language model of any form, or a classifier, to ONNX with PyTorch's own exporter, in float32.

    Decoders, encoder-decoders (T5, Marian) and recurrent models (`rnn-lm`, `rnn-seq2seq`); classifiers with the body
    of a decoder or an encoder, whose one graph reads texts whole. The graphs take and
    give what the model carries from token to token: keys and values of attention, or recurrent states; an encoder is a
    graph of its own, whose keys and values are computed once for a prompt. Beside them lie the tokenizer, the
    configuration and `interface.json`, which says how the graphs belong together.

    In a process of its own the result is compared with PyTorch, one by one and in padded batches, short and near the
    model's longest context; where it differs, the export fails with the numbers. Metrics: `export_logit_error`,
    `export_mean_kl`, `export_top1_agreement`, `export_greedy_agreement`, `megabytes`.

    Args:
        verified_tokens: of the longest text that is compared, as far as the model's context goes. More of them show
            whether positions far out are right too, and take time that grows faster than they do.
    """
    from luthier_onnx.torch_export import export_dynamo

    export_dynamo(model.path, ctx, verified_tokens=verified_tokens)


@component(needs={"onnx": {"genai"}}, streams=True)
def onnxruntime_genai(
    onnx: OnnxModel, ctx: Context, *, adapter: Literal["own", "none"] | Location = "own"
) -> Generator:
    """Run an ONNX model with onnxruntime-genai on the CPU.

    Args:
        adapter: of a model that was exported with `adapter: apart`: its `own`, if it has one, `none`, or that of
            another export from the same model, by the path of its directory.
    """
    from luthier_onnx.runtime import GenaiGenerator

    generator = GenaiGenerator(onnx.path, ctx)
    if adapter == "own":
        return generator
    return generator.with_adapter(None if adapter == "none" else ctx.open(adapter))


@component(needs={"onnx": {"decoder", "encoder-decoder", "sequence-classifier"}}, streams=True)
def onnxruntime(onnx: OnnxModel, ctx: Context, *, batch_size: Annotated[int, Ge(1)] = 8) -> Generator:
    """Run graphs that carry their states, as `dynamo` and optimum export them, with plain ONNX Runtime on the CPU.

    Texts are read and completed in padded batches; what is carried from token to token stays in ONNX Runtime's memory.
    What a classifier writes is one of its labels.

    Args:
        batch_size: texts that are read or completed together.
    """
    if onnx.form == "sequence-classifier":
        from luthier_onnx.classifier import GraphClassifier

        return GraphClassifier(onnx.path, ctx, batch_size=batch_size)
    from luthier_onnx.generator import GraphGenerator

    return GraphGenerator(onnx.path, ctx, batch_size=batch_size)


@hookimpl
def luthier_exporters() -> list[Callable[..., Any]]:
    """Give the exporters."""
    return [genai, dynamo]


@hookimpl
def luthier_runtimes() -> list[Callable[..., Any]]:
    """Give the runtimes."""
    return [onnxruntime_genai, onnxruntime]
