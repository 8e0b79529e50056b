"""Configuration -> DualHead: the backbone loaded, the adapter added, the head drawn, all of it checked."""

from __future__ import annotations

from typing import Any

import clsgen_dist.accelerator  # noqa: F401 - before peft, which imports DeepSpeed

# isort: split
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from clsgen_dist.config.sections import Lora, Model
from clsgen_dist.errors import ConfigError
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.model.heads import ClassificationHead
from clsgen_dist.model.liger import use_liger_kernels
from clsgen_dist.model.recomputation import recompute_layers

#: Number format of weights and activations, by train.precision.
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def read_backbone_config(model: Model, folder: str) -> Any:
    """The backbone's own configuration, without its weights.

    Raises:
        ConfigError: there is none, or it is no decoder-only causal language model.
    """
    try:
        config = AutoConfig.from_pretrained(folder, revision=model.revision, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"model.name_or_path: no backbone at {folder} ({reason})") from None
    kind = config.model_type
    masked = any("MaskedLM" in name for name in config.architectures or ())
    if config.is_encoder_decoder or masked or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"model.name_or_path: {folder} is a {kind} model ({', '.join(config.architectures or ('unknown',))}), "
            "expected a decoder-only causal language model (Llama, Qwen, Gemma, Mistral, ...)"
        )
    return config


def build_skeleton(model: Model, folder: str, num_labels: int) -> DualHead:
    """The model without memory (meta tensors): for counting, and for finding LoRA targets that match nothing."""
    config = read_backbone_config(model, folder)
    with torch.device("meta"):
        backbone = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
        backbone = add_new_adapter(backbone, model.lora, seed=0)
        head = ClassificationHead.__new__(ClassificationHead)
        nn.Module.__init__(head)
        head.weight = nn.Parameter(torch.empty(num_labels, config.get_text_config().hidden_size))
        head.bias = nn.Parameter(torch.empty(num_labels))
    return DualHead(backbone, head)


def build_model(model: Model, folder: str, num_labels: int, *, dtype: torch.dtype, seed: int) -> DualHead:
    """Loads and joins the parts.

    Inside an engine's `loading` context the backbone is partitioned while it is loaded, and no rank holds the whole.

    Args:
        model: settings of the backbone.
        folder: where the backbone is: a folder, or a name on the Hub.
        num_labels: K.
        dtype: number format of the weights.
        seed: seed of adapter and head; the same on every rank.

    Raises:
        ConfigError: no causal language model there, LoRA targets that match nothing, or no Liger kernels to be had.
    """
    assert "auto" not in (model.gradient_checkpointing, model.attention), "whoever knows the devices decides"
    read_backbone_config(model, folder)
    backbone = load_backbone(model, folder, dtype=dtype)
    if model.liger_kernels:
        use_liger_kernels(backbone)
    backbone = add_new_adapter(backbone, model.lora, seed=seed)
    recompute_layers(backbone, model.gradient_checkpointing, inputs_on_host=model.activation_offload)
    head = ClassificationHead(backbone.config.get_text_config().hidden_size, num_labels, seed=seed).to(dtype)
    return DualHead(backbone, head)


def load_backbone(model: Model, folder: str, *, dtype: torch.dtype) -> Any:
    """The pretrained causal language model alone.

    Raises:
        ConfigError: it has no weights as safetensors.
    """
    try:
        return _pretrained(model, folder, dtype)
    except OSError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"model.name_or_path: the weights of {folder} cannot be read; expected safetensors, not the "
            f"older files, which are pickles ({reason})"
        ) from None


def _pretrained(model: Model, folder: str, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        attn_implementation=model.attention,
        dtype=dtype,
        use_safetensors=True,  # the other format is a pickle
    )


def add_new_adapter(backbone: Any, lora: Lora | None, *, seed: int) -> Any:
    """Wraps a backbone with a fresh adapter, the same on every rank; without `lora` the backbone stays as it is.

    Raises:
        ConfigError: the targets match no module.
    """
    if lora is None:
        return backbone
    targets = lora.target_modules
    alpha: Any = lora.alpha  # PEFT says int and computes with a float
    config = LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            # All trainables in the backbone's number format: ZeRO-3 gathers them in one flat buffer.
            return get_peft_model(backbone, config, autocast_adapter_dtype=False)
        except ValueError as error:
            names = sorted({n.rsplit(".", 1)[-1] for n, m in backbone.named_modules() if isinstance(m, nn.Linear)})
            raise ConfigError(
                f"model.lora.target_modules: {targets!r} matches no module of the backbone; "
                f"its linear layers are {', '.join(names)} ({str(error).splitlines()[0][:120]})"
            ) from None


def parameter_groups(model: DualHead, *, learning_rate: float, head_learning_rate: float, weight_decay: float) -> Any:
    """Trainable parameters by learning rate and weight decay; no group is empty, no parameter stands in two.

    Returns:
        Groups for torch.optim, each with a `name` of backbone or head.
    """
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "head" if name.startswith("head.") else "backbone"
        # Under ZeRO-3 a partitioned parameter is flat; its true shape is in ds_shape.
        is_vector = len(getattr(parameter, "ds_shape", parameter.shape)) < 2
        decay = 0.0 if is_vector else weight_decay
        rate = head_learning_rate if part == "head" else learning_rate
        group = groups.setdefault((part, decay), {"params": [], "lr": rate, "weight_decay": decay, "name": part})
        group["params"].append(parameter)
    return list(groups.values())


def check_causal(model: DualHead) -> None:
    """Proves on six tokens that the model is what the rest of the code takes it for.

    A later token must not change an earlier hidden state (or the probability would depend on the explanation), a row
    must not change its neighbour in a packed line (some families, Bloom, Falcon and Mamba among them, do not see rows
    in position_ids), and logits taken at chosen positions must be the backbone's own (some families scale them in
    their forward pass).

    Raises:
        ConfigError: one of the three does not hold.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 11]], device=device)
    packed_ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 8, 9, 10]], device=device)
    position_ids = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2, device=device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        whole = model.causal_lm(input_ids=ids, use_cache=False).logits
        hidden_BTD = model.decode(input_ids=ids, use_cache=False).last_hidden_state
        ours = model.lm_logits(hidden_BTD[:, 2])
        packed_BTD = model.decode(input_ids=packed_ids, position_ids=position_ids, use_cache=False).last_hidden_state
    model.train(was_training)
    if not torch.allclose(hidden_BTD[0, :5], hidden_BTD[1, :5], atol=1e-3, rtol=1e-3):
        raise ConfigError("model.name_or_path: a later token changes an earlier state: not a causal language model")
    if not torch.allclose(packed_BTD[0, 3:], packed_BTD[1, 3:], atol=1e-3, rtol=1e-3):
        raise ConfigError(
            "model.name_or_path: this family lets packed rows read each other (it sees no rows in position_ids); "
            "expected one that does not, as Llama, Qwen, Gemma and Mistral"
        )
    if not torch.allclose(whole[:, 2].float(), ours.float(), atol=1e-2, rtol=1e-2):
        raise ConfigError(
            "model.name_or_path: this family changes its logits after the output layer in a way that is not supported"
        )
