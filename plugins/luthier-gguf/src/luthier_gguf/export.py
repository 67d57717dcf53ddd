"""The exporter `gguf`: a model directory to one file, which a new process reads back before it counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from transformers import AutoConfig

from luthier import InputError
from luthier_gguf.families import Family, family_of
from luthier_gguf.library import is_installed
from luthier_gguf.tensors import FILE_TYPES, Weights, weights_of
from luthier_gguf.vocabulary import write_vocabulary
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_models.verification import verify_written

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier import Context

FILE = "model.gguf"
COMPARISON = "luthier_gguf.comparison"


def export_gguf(model: Path, ctx: Context, precision: str, verified_tokens: int) -> None:
    """Write the model in `model` to `ctx.output` for llama.cpp.

    Metrics: `megabytes` and, if the file could be verified, those of `luthier_gguf.comparison`.

    Raises:
        InputError: if llama.cpp has no such architecture, setting or tokenizer, or the model cannot be read.
        PluginError: if what was written is not the model; nothing is kept then.
    """
    family = read_family(model)
    encoder = PromptEncoder.from_directory(model)
    ctx.progress(0, 2)
    try:
        write(model, family, encoder, ctx.output, precision)
        ctx.progress(1, 2)
        reader = "llama.cpp" if is_installed() else "transformers"
        lossy = [] if precision in ("f32", "f16") else ["--lossy"]
        verify_written(COMPARISON, model, ctx, reader, f"--longest={verified_tokens}", *lossy)
    except BaseException:
        for path in ctx.output.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    ctx.progress(2, 2)


def read_family(model: Path) -> Family:
    """The family of a model directory, before anything is loaded.

    Raises:
        InputError: if the directory has no configuration, or llama.cpp no such model; naming those that work.
    """
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{model} is no model directory: {reason}", "Give a Hugging Face directory.") from error
    return family_of(config)


def write(directory: Path, family: Family, encoder: PromptEncoder, output: Path, precision: str) -> None:
    """Write the GGUF file (what the model is, its tokenizer, its weights one after the other) and what lies beside it.

    Raises:
        InputError: if the model cannot be read, or llama.cpp has no such tokenizer or weight.
    """
    model = load_causal_lm(directory)
    # For Luthier: the same texts are the same tokens, whatever runs the model.
    encoder.tokenizer.save_pretrained(output)
    model.generation_config.eos_token_id = sorted(encoder.end_tokens) or None
    model.generation_config.to_json_file(output / "generation_config.json")
    writer = gguf.GGUFWriter(output / FILE, gguf.MODEL_ARCH_NAMES[family.arch])
    try:
        write_settings(writer, model, family, precision)
        write_vocabulary(writer, encoder, output, model.config.vocab_size)
        weights = list(weights_of(model, family, precision))
        for each in weights:
            _announce(writer, each)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for each in weights:
            writer.write_tensor_data(each.stored())
    finally:
        writer.close()


def _announce(writer: gguf.GGUFWriter, each: Weights) -> None:
    shape = each.stored_shape
    writer.add_tensor_info(each.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=each.kind)


def write_settings(writer: gguf.GGUFWriter, model: PreTrainedModel, family: Family, precision: str) -> None:
    """Add the architecture's sizes and constants."""
    config: Any = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    # GPT-2's configuration calls it otherwise, and may leave it out.
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or config.n_inner or 4 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or heads)
    writer.add_vocab_size(config.vocab_size)
    if family.norm == "rms":
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(getattr(config, "layer_norm_eps", None) or config.layer_norm_epsilon)
    if family.arch == gguf.MODEL_ARCH.STABLELM:
        writer.add_parallel_residual(config.use_parallel_residual)
    write_positions(writer, model)
    writer.add_file_type(FILE_TYPES[precision])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_positions(writer: gguf.GGUFWriter, model: PreTrainedModel) -> None:
    """Add what rotary positions depend on; nothing for a model that learned an embedding of them."""
    config: Any = model.config
    rope: dict[str, Any] | None = getattr(config, "rope_parameters", None)
    if rope is None:
        return
    dimensions = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(dimensions)
    writer.add_value_length(dimensions)
    # The frequencies that the model turns by are the authority on how many dimensions those are.
    writer.add_rope_dimension_count(2 * len(model.model.rotary_emb.inv_freq))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
