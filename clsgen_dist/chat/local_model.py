"""A causal language model of transformers in this process, with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.errors import ConfigError


@dataclass(frozen=True)
class LocalModel:
    """A loaded model.

    Attributes:
        model: causal language model, in evaluation mode.
        tokenizer: its tokenizer.
        name: where it came from, for messages.
        device: where it is, as "cuda".
    """

    model: Any
    tokenizer: Any
    name: str
    device: str


def check_local(settings: ChatSettings) -> None:
    """Looks at the model's configuration, before any row is spent and without its weights.

    Raises:
        ConfigError: there is no model at `settings.model`, or it is no decoder-only causal language model.
    """
    import clsgen_dist.accelerator  # noqa: F401 - before transformers, which looks for GPUs

    # isort: split
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if settings.model is None:
        raise ConfigError(f"{settings.section}.model: not set; a local model needs a folder or a Hub name there")
    try:
        config = AutoConfig.from_pretrained(settings.model)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{settings.section}.model: no model at {settings.model} ({_first_line(error)})") from None
    architectures = config.architectures or ("unknown",)
    masked = any("MaskedLM" in name for name in architectures)
    if config.is_encoder_decoder or masked or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"{settings.section}.model: {settings.model} is a {config.model_type} model ({', '.join(architectures)}), "
            "expected a decoder-only causal language model (Llama, Qwen, Gemma, Mistral, ...)"
        )


def load_local(settings: ChatSettings) -> LocalModel:
    """Loads a model: in bf16 onto the GPU where there is one, else as it is stored.

    Raises:
        ConfigError: see `check_local`; or no tokenizer, or weights that cannot be read.
    """
    check_local(settings)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name, dtype = str(settings.model), torch.bfloat16 if device == "cuda" else "auto"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except Exception as error:  # noqa: BLE001 - torn files and missing libraries raise many kinds, none of them ours
        raise ConfigError(
            f"{settings.section}.model: {name} cannot be loaded ({_first_line(error)}); "
            "expected weights and a tokenizer"
        ) from None
    return LocalModel(model.to(device).eval(), tokenizer, name, device)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
