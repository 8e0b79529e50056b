"""Small things that many tests need: rows, a tokenizer, a backbone of each family, a run configuration."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import clsgen_dist.accelerator  # noqa: F401 - before transformers, which looks for GPUs
from clsgen_dist.config.run import RunConfig, build_config
from clsgen_dist.config.source import ConfigSource

ROOT = Path(__file__).parents[2]

#: Families of backbones that `tiny_backbone` writes. Gemma3 has one layer in three that sees more than `WINDOW` tokens.
FAMILIES = ("llama", "qwen2", "gemma3", "mistral")
WINDOW = 8

CHAT_TEMPLATE = (
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_numbers = itertools.count()


def tiny_rows(num_rows: int, *, seed: int = 0, prefix: str = "row") -> list[dict[str, Any]]:
    """Rows of unequal length whose label is whether they speak of fever; every fourth has no explanation."""
    draw = random.Random(f"{prefix} {seed}")
    words = re.findall(
        r"\w+", "pain cough rash calm old young tired back arm leg mild known since monday little walks sleeps eats"
    )
    rows = []
    for number in range(num_rows):
        label = number % 2
        text = draw.choices(words, k=draw.randint(3, 14))
        text.insert(draw.randrange(len(text)), "fever" if label else "fine")
        row = {"id": f"{prefix}-{number}", "text": f"{' '.join(text)} {prefix} {number}", "label": label}
        if number % 4 != 3:
            reasons = (
                ("There is a fever.", "A fever, and that is enough.") if label else ("All is fine.", "Nothing new.")
            )
            row["explanation"] = draw.choice(reasons)
        rows.append(row)
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes rows as JSON lines; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@functools.cache
def _trained_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [f"{row['text']} {row.get('explanation', '')}" for row in tiny_rows(200, seed=9)]
    tokenizer.train_from_iterator([*texts, "Urgent? no. yes."] * 2, trainer)
    return tokenizer


def tiny_tokenizer(*, bos: bool = False, chat: bool = False, pad_is_eos: bool = False) -> Any:
    """Byte-level BPE with 320 tokens; with `bos` it opens every text, with `chat` it has a chat template."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(_trained_tokenizer().to_str())
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>" if pad_is_eos else "<pad>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(family: str = "llama", *, seed: int = 0, vocab_size: int = 320, **shape: Any) -> Any:
    """A transformers causal language model with random fp32 weights, large enough ones to write varied text.

    Gemma3 has two sliding-window layers and a full one between them.
    """
    import torch
    import transformers

    names = {"llama": "Llama", "qwen2": "Qwen2", "gemma3": "Gemma3Text", "mistral": "Mistral"}
    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.15,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "gemma3":
        kinds = ["sliding_attention", "full_attention", "sliding_attention"]
        sizes |= {"num_hidden_layers": 3, "layer_types": kinds, "sliding_window": WINDOW, "head_dim": 8}
    config = getattr(transformers, f"{names[family]}Config")(**sizes | shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def tiny_backbone(folder: Path, family: str = "llama", *, tokenizer: Any = None, **options: Any) -> str:
    """Writes a backbone with its tokenizer, as a folder that loads like any pretrained model; returns the folder.

    Args:
        folder: where to write.
        family: one of FAMILIES.
        tokenizer: a tokenizer; None is `tiny_tokenizer()`.
        options: `seed`, and settings of the family's configuration, for `tiny_model`.
    """
    tiny_model(family, **options).save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return str(folder)


@functools.cache
def _shared_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="clsgen-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def shared_backbone(family: str = "llama", **options: Any) -> str:
    """A `tiny_backbone` that is written once a session; nobody changes it."""
    return tiny_backbone(_shared_folder() / f"{family}-{next(_numbers)}", family, **options)


def tiny_config(tmp_path: Path, **dotted_overrides: Any) -> RunConfig:
    """A run of seconds: 80 rows in one file, a LoRA on a tiny Llama, fp32, one worker.

    Args:
        tmp_path: holds the rows (`rows.jsonl`, written where it is missing), the runs and the MLflow database.
        dotted_overrides: settings as `**{"train.epochs": 2}`; a whole section as `**{"model.lora": None}`.
    """
    rows = tmp_path / "rows.jsonl"
    if not rows.exists():
        write_jsonl(rows, tiny_rows(80))
    tree: dict[str, Any] = {
        "run": {"name": "tiny", "output_dir": str(tmp_path / "runs"), "seed": 1},
        "task": {"question": "Fever?", "labels": ["no", "yes"], "prompt_template": "{text}\nUrgent?"},
        "data": {
            "train": str(rows),
            "split_fractions": {"validation": 0.15, "calibration": 0.15, "test": 0.15},
            "max_prompt_tokens": 64,
            "max_explanation_tokens": 32,
        },
        "model": {"name_or_path": None, "lora": {"rank": 4, "alpha": 8.0}},
        "train": {
            "global_batch": 8,
            "token_budget": 128,
            "precision": "fp32",
            "learning_rate": 1e-3,
            "num_workers": 1,
            "cpu_threads": 1,
            "deepspeed": str(ROOT / "ds_configs" / "zero3_cpu.json"),
        },
        "calibrate": {"method": "none"},  # 12 calibration rows are fewer than a temperature needs
        "predict": {"max_new_tokens": 12, "token_budget": 1024},
        "evaluate": {"num_bootstrap": 100},
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
    }
    for name, value in dotted_overrides.items():
        *sections, key = name.split(".")
        functools.reduce(lambda branch, section: branch.setdefault(section, {}), sections, tree)[key] = value
    if tree["model"]["name_or_path"] is None and not tree["model"].get("from_scratch"):
        tree["model"]["name_or_path"] = shared_backbone()
    return build_config(ConfigSource(tree=tree, places={(): "tiny_config"}))


def tiny_dual(family: str = "llama", *, num_labels: int = 2, lora: bool = False, seed: int = 0, **options: Any) -> Any:
    """A DualHead on `tiny_model`, in evaluation mode, its head large enough to be sure of itself.

    With `lora`, an adapter of rank 4 on all linear layers, whose weights are drawn so that it changes something.
    """
    import torch

    from clsgen_dist.config.sections import Lora
    from clsgen_dist.model.build import add_new_adapter
    from clsgen_dist.model.dual_head import DualHead
    from clsgen_dist.model.heads import ClassificationHead

    backbone = tiny_model(family, seed=seed, **options)
    width = backbone.config.get_text_config().hidden_size
    if lora:
        backbone = add_new_adapter(backbone, Lora(rank=4, alpha=8.0), seed=seed)
    head = ClassificationHead(width, num_labels, seed=seed)
    with torch.no_grad():
        head.weight *= 10
        for number, (name, parameter) in enumerate(backbone.named_parameters()):
            if "lora_B" in name:
                generator = torch.Generator().manual_seed(seed + number)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return DualHead(backbone, head).eval()


def tiny_tokenized(
    sizes: Iterable[tuple[int, int]], *, seed: int = 0, num_labels: int = 2, first_id: int = 5
) -> list[Any]:
    """Rows of random token ids, given as tokens of (prompt, completion); every third label is unknown."""
    import numpy as np

    from clsgen_dist.data.tokens import TokenizedRow

    draw = np.random.default_rng(seed)
    return [
        TokenizedRow(
            prompt=draw.integers(first_id, 320, prompt),
            completion=draw.integers(first_id, 320, completion),
            label=-1 if n % 3 == 2 else n % num_labels,
            num_unscored=int(n % 3 == 2 and completion > 0),
        )
        for n, (prompt, completion) in enumerate(sizes)
    ]
