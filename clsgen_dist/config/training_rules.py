"""Combinations that cannot work in data, model, objective and training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clsgen_dist.config.rule import Rule

if TYPE_CHECKING:
    from clsgen_dist.config.run import RunConfig


def _names(target_modules: str | list[str]) -> list[str]:
    return [target_modules] if isinstance(target_modules, str) else target_modules


def _of_the_head(config: RunConfig) -> list[str]:
    """Settings that somebody set and only a head has a use for."""
    found = {
        "objective.class_weights": config.objective.class_weights is not None,
        "objective.label_smoothing": config.objective.label_smoothing > 0,
        "train.head_warmup_steps": config.train.head_warmup_steps > 0,
    }
    return [name for name, is_set in found.items() if is_set]


def _of_general_text(config: RunConfig) -> list[str]:
    """Settings of general text that somebody set."""
    default = type(config.objective)()
    found = ["data.general_text"] if config.data.general_text is not None else []
    names = ("general_passages", "general_tokens")
    return found + [f"objective.{n}" for n in names if getattr(config.objective, n) != getattr(default, n)]


def _verdicts_nest(config: RunConfig) -> bool:
    """Whether a label's verdict begins with that of another label."""
    verdicts = [config.task.verdict_template.replace("{label}", label) for label in config.task.labels]
    return any(one is not other and one.startswith(other) for one in verdicts for other in verdicts)


TRAINING_RULES = (
    Rule(
        ("run", "storage"),
        "run.storage without tracking.uri, or with that of a database in a file",
        "without a folder that nodes share, MLflow's database would be in the folder of one node; give the address of "
        "an MLflow server in tracking.uri",
        lambda c: c.run.storage is not None and (c.tracking.uri is None or c.tracking.uri.startswith("sqlite:")),
    ),
    Rule(
        ("data",),
        "data.train and data.vignettes both set, or neither",
        "rows come from one place: name a file or data set, or ask for the embedded vignettes",
        lambda c: (c.data.train is None) == (c.data.vignettes is None),
    ),
    Rule(
        ("data", "vignettes"),
        "data.vignettes with data.validation, data.calibration or data.test",
        "the vignettes bring all four splits",
        lambda c: c.data.vignettes is not None and bool(c.data.validation or c.data.calibration or c.data.test),
    ),
    Rule(
        ("data", "vignettes"),
        "data.vignettes with other than two labels",
        "a vignette is drawn with one of two labels",
        lambda c: c.data.vignettes is not None and len(c.task.labels) != 2,
    ),
    Rule(
        ("data", "subgroup_columns"),
        "data.vignettes with data.subgroup_columns",
        "vignettes have no further columns",
        lambda c: c.data.vignettes is not None and bool(c.data.subgroup_columns),
    ),
    Rule(
        ("data", "reference_columns"),
        "data.vignettes with data.reference_columns",
        "vignettes have no further columns",
        lambda c: c.data.vignettes is not None and bool(c.data.reference_columns),
    ),
    Rule(
        ("data", "split_fractions"),
        "data.split_fractions that leave less than half of the rows to train",
        "the three fractions must sum to 0.5 or less",
        lambda c: sum(c.data.split_fractions.model_dump().values()) > 0.5,
    ),
    Rule(
        ("data", "label_map"),
        "data.label_map with a name that task.labels lacks",
        "every value of the map must be one of task.labels",
        lambda c: c.data.label_map is not None and not set(c.data.label_map.values()) <= set(c.task.labels),
    ),
    Rule(
        ("model",),
        "model.name_or_path and model.from_scratch both set, or neither",
        "a run has one backbone: load one, or have a small one made",
        lambda c: (c.model.name_or_path is None) == (c.model.from_scratch is None),
    ),
    Rule(
        ("model", "lora"),
        "model.lora with model.from_scratch",
        "an adapter on random weights learns nothing; set model.lora to null",
        lambda c: c.model.from_scratch is not None and c.model.lora is not None,
    ),
    Rule(
        ("model", "from_scratch"),
        "model.from_scratch with model.gguf_file or model.revision",
        "those belong to a backbone that is loaded",
        lambda c: c.model.from_scratch is not None and bool(c.model.gguf_file or c.model.revision),
    ),
    Rule(
        ("model", "from_scratch", "hidden_size"),
        "model.from_scratch.hidden_size not a multiple of num_heads, or with an odd head width",
        "every attention head has hidden_size / num_heads channels, an even number",
        lambda c: (
            c.model.from_scratch is not None
            and c.model.from_scratch.hidden_size % (2 * c.model.from_scratch.num_heads) != 0
        ),
    ),
    Rule(
        ("model", "lora", "target_modules"),
        "model.lora.target_modules with lm_head or the embeddings",
        "language-model logits are taken at loss positions only, outside the adapter, which would be left out silently",
        lambda c: (
            c.model.lora is not None
            and any(name in ("lm_head", "embed_tokens") for name in _names(c.model.lora.target_modules))
        ),
    ),
    Rule(
        ("model", "attention"),
        "model.attention flash_attention_2 with train.precision fp32",
        "FlashAttention has no fp32 kernels; use sdpa, or bf16",
        lambda c: c.model.attention == "flash_attention_2" and c.train.precision == "fp32",
    ),
    Rule(
        ("model", "activation_offload"),
        "model.activation_offload with model.gradient_checkpointing none",
        "what moves to the CPU are the inputs of layers that are computed again; set it to selective, full or auto",
        lambda c: c.model.activation_offload and c.model.gradient_checkpointing == "none",
    ),
    Rule(
        ("objective", "kl_weight"),
        "objective.kl_weight or general_weight without model.lora",
        "the base model is the tuned one with its adapter switched off; full fine-tuning keeps no base",
        lambda c: c.objective.kl_weight + c.objective.general_weight > 0 and c.model.lora is None,
    ),
    Rule(
        ("objective", "general_weight"),
        "data.general_text, objective.general_passages or general_tokens with objective.general_weight 0",
        "no general text is looked at; set the weight, or take the setting away",
        lambda c: _of_general_text(c) if c.objective.general_weight == 0 else [],
    ),
    Rule(
        ("objective", "general_tokens"),
        "objective.general_tokens above train.token_budget",
        "a micro-batch must hold a passage of general text",
        lambda c: c.objective.general_weight > 0 and c.objective.general_tokens > c.train.token_budget,
    ),
    Rule(
        ("objective", "w_cls"),
        "objective.w_cls and objective.w_gen both 0",
        "neither a head nor words would be learned, and a probability comes from one of them",
        lambda c: c.objective.w_cls == 0 and c.objective.w_gen == 0,
    ),
    Rule(
        ("objective", "w_cls"),
        "objective.class_weights, objective.label_smoothing or train.head_warmup_steps with objective.w_cls 0",
        "no head is trained, the words of the verdict give the probability; take the setting away",
        lambda c: _of_the_head(c) if c.objective.w_cls == 0 else [],
    ),
    Rule(
        ("task", "verdict_template"),
        "objective.w_cls 0 with a verdict that begins with another one",
        "the likelihood of the shorter one would count the longer one, too; let task.verdict_template end in a period",
        lambda c: c.objective.w_cls == 0 and _verdicts_nest(c),
    ),
    Rule(
        ("objective", "w_gen"),
        "objective.w_gen or kl_weight above 0 with explain.teacher column and without data.explanation_column",
        "the language-model loss needs explanations; name their column, take another teacher, or set both weights to 0",
        lambda c: (
            c.objective.w_gen + c.objective.kl_weight > 0
            and c.explain.teacher == "column"
            and c.data.explanation_column is None
            and c.data.vignettes is None
        ),
    ),
    Rule(
        ("objective", "class_weights"),
        "objective.class_weights with another number of weights than task.labels",
        "one weight a label, in the order of task.labels",
        lambda c: isinstance(c.objective.class_weights, list) and len(c.objective.class_weights) != len(c.task.labels),
    ),
    Rule(
        ("train", "token_budget"),
        "train.token_budget below data.max_prompt_tokens + data.max_explanation_tokens",
        "a micro-batch must hold the longest row that the limits allow",
        lambda c: c.train.token_budget < c.data.max_prompt_tokens + c.data.max_explanation_tokens,
    ),
    Rule(
        ("train", "max_skipped_steps"),
        "train.max_skipped_steps with train.on_nonfinite stop",
        "no step is skipped; set train.on_nonfinite to skip, or take the setting away",
        lambda c: c.train.on_nonfinite == "stop" and c.train.max_skipped_steps != type(c.train)().max_skipped_steps,
    ),
    Rule(
        ("ray", "min_workers"),
        "ray.min_workers above train.num_workers",
        "a run has train.num_workers at most",
        lambda c: (c.ray.min_workers or 1) > c.train.num_workers,
    ),
    Rule(
        ("predict", "token_budget"),
        "predict.token_budget below data.max_prompt_tokens + predict.max_new_tokens",
        "a batch must hold the longest prompt and what is written after it",
        lambda c: c.predict.token_budget < c.data.max_prompt_tokens + c.predict.max_new_tokens,
    ),
)
