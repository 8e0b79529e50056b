"""Backbones that are made rather than loaded: a small Llama from nothing, and a GGUF file written out as safetensors.

Both end as a folder that loads like any pretrained model, so nothing after this knows the difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from clsgen_dist.config.sections import FromScratch

_BOS, _EOS, _PAD = "<s>", "</s>", "<pad>"

#: The trainer of the tokenizer keeps every word that it has met, numbers and names among them.
_MOST_TEXTS = 100_000


def make_small_backbone(folder: Path, shape: FromScratch, texts: Iterable[str], *, max_tokens: int, seed: int) -> None:
    """Writes a Llama with random weights and a byte-level BPE tokenizer trained on `texts`.

    Args:
        folder: where to write.
        shape: sizes.
        texts: what the tokenizer learns from, a stream; of a long one the beginning.
        max_tokens: longest sequence that the model will see.
        seed: seed of the weights.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocab_size,
        special_tokens=[_PAD, _BOS, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(texts, _MOST_TEXTS), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_BOS, eos_token=_EOS, pad_token=_PAD)
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    fast.save_pretrained(folder)
    model.save_pretrained(folder)


def write_out_gguf(folder: Path, name_or_path: str, gguf_file: str, *, revision: str | None = None) -> None:
    """Dequantises a GGUF model once and writes it as bf16 safetensors, which load in seconds and shard by shard."""
    tokenizer = AutoTokenizer.from_pretrained(name_or_path, gguf_file=gguf_file, revision=revision)
    model = AutoModelForCausalLM.from_pretrained(
        name_or_path,
        gguf_file=gguf_file,
        revision=revision,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    for leftover in ("quantization_config", "hf_quantizer"):  # else saving refuses: the weights are dense now
        for owner in (model.config, model):
            if hasattr(owner, leftover):
                delattr(owner, leftover)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
