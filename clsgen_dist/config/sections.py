"""The sections of a run configuration, one class a section, one field a setting.

Strict and frozen: an unknown key, a wrong type or a value out of range is an error. The description of a field says
what it is and in which unit; `--help` prints it with the default.
"""

from __future__ import annotations

import re
import string
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
VignetteCount = Annotated[int, Field(ge=1, le=1_000_000)]


#: Neither a NUL, which ends the names of files, nor half of a surrogate pair, which no file can hold.
_TEXT = re.compile(r"[^\0\ud800-\udfff]*")

#: Control characters, line ends, and marks that turn the direction of what follows: a label is one line for people.
_NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

#: An object store, or for tests a folder as one; keys and options would stand before an @ or after a ?.
_STORAGE = re.compile(r"(s3|gs)://[^/?#@\s][^?#@\s]*|file:///[^?#\s]+")

#: Characters of a label's name.
_LONGEST_LABEL = 200


class Section(BaseModel):
    """A strict, frozen group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _text_is_text(cls, value: Any) -> Any:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not _TEXT.fullmatch(text):
                raise ValueError("holds a NUL, or half of a character")
        return value


class Run(Section):
    name: str = Field(
        description="name of the run; its folder is OUTPUT_DIR/NAME", pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=128
    )
    output_dir: str = Field(
        "runs",
        description="folder that holds the run folders; shared by all nodes, or with run.storage each node's own",
    )
    storage: str | None = Field(
        None,
        description="object store that holds the run folders where nodes share no folder, as s3://BUCKET/PREFIX or "
        "gs://BUCKET/PREFIX; keys come from each node's environment or role",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of everything that is drawn")

    @field_validator("storage")
    @classmethod
    def _storage_is_an_address(cls, storage: str | None) -> str | None:
        if storage is not None and not _STORAGE.fullmatch(storage):
            raise ValueError(  # without the address, which may hold a key
                "expected s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, with no keys and no options in it; those come from "
                "the environment"
            )
        return storage


class Task(Section):
    question: str = Field(description="what is asked of every text", min_length=1)
    labels: list[str] = Field(
        description="names of the labels in the order of their numbers; of two, the last one is the positive one"
    )
    prompt_template: str = Field(
        "{question}\nAnswer with one of: {labels}. Then give the reason.\n\n{text}\n\nAnswer:",
        description="the prompt; {text} must stand in it once, {question} and {labels} may",
    )
    verdict_template: str = Field("{label}.", description="how the generated part opens; {label} must stand in it once")

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: list[str]) -> list[str]:
        if len(labels) < 2:
            raise ValueError(f"found {len(labels)} label(s), expected at least two")
        if any(not name.strip() for name in labels):
            raise ValueError("a label without a name")
        if any(_NOT_IN_A_NAME.search(name) for name in labels):
            raise ValueError("a label with a line end or another control character")
        if any(len(name) > _LONGEST_LABEL for name in labels):
            raise ValueError(f"a label of more than {_LONGEST_LABEL} characters")
        folded = [name.strip().casefold() for name in labels]
        if len(set(folded)) < len(folded):
            raise ValueError(f"labels must differ by more than case and space, found {labels}")
        return labels

    @field_validator("prompt_template")
    @classmethod
    def _prompt_holds_the_text(cls, template: str) -> str:
        if template.count("{text}") != 1:
            raise ValueError("must hold {text} exactly once")
        return template

    @field_validator("verdict_template")
    @classmethod
    def _verdict_holds_the_label(cls, template: str) -> str:
        if template.count("{label}") != 1:
            raise ValueError("must hold {label} exactly once")
        return template


class Vignettes(Section):
    """The embedded data set: triage vignettes whose true probability is known."""

    num_train: VignetteCount = Field(8000, description="rows of the train split")
    num_validation: VignetteCount = Field(500, description="rows of the validation split")
    num_calibration: VignetteCount = Field(1000, description="rows of the calibration split")
    num_test: VignetteCount = Field(2000, description="rows of the test split")


class SplitFractions(Section):
    """Shares of data.train that become the splits which have no file of their own."""

    validation: float = Field(0.1, gt=0.0, lt=1.0, description="share of rows, split off where data.validation is null")
    calibration: float = Field(0.1, gt=0.0, lt=1.0, description="share of rows, where data.calibration is null")
    test: float = Field(0.1, gt=0.0, lt=1.0, description="share of rows, where data.test is null")


class Data(Section):
    train: str | None = Field(
        None,
        description="rows: .jsonl, .json, .csv or .parquet, a pattern (data/*.csv), or a Hugging Face data set "
        "NAME:SPLIT",
    )
    validation: str | None = Field(None, description="rows to choose the best step on; null: split off from train")
    calibration: str | None = Field(None, description="rows to calibrate on; null: split off from train")
    test: str | None = Field(None, description="rows to report on; null: split off from train")
    vignettes: Vignettes | None = Field(None, description="make the embedded data set instead of reading rows")
    split_fractions: SplitFractions = Field(SplitFractions(), description="sizes of splits that have no file")
    text_column: str = Field("text", description="column of the text")
    text_template: str | None = Field(
        None,
        description='text made of several columns, as "Claim: {claim}\\n\\nAbstract: {abstract}"; over text_column',
    )
    label_column: str = Field("label", description="column of the label: its number, its name, or a key of label_map")
    label_map: dict[str, str] | None = Field(None, description="value of label_column -> name of the label")
    explanation_column: str | None = Field("explanation", description="column of reasons that people wrote, or null")
    reference_columns: list[str] = Field(
        [],
        description="columns of further reasons that people wrote, where a row has them; explanations are compared "
        "with them and nothing learns from them",
    )
    id_column: str = Field("id", description="column of the row's id; where it is absent, ids are numbered")
    group_column: str | None = Field("group", description="rows of one group never stand in two splits")
    allow_shared_groups: bool = Field(
        False,
        description="let groups stand in several splits, as of published splits; what is split off from train is then "
        "dealt row by row, and intervals still keep groups whole",
    )
    subgroup_columns: list[str] = Field(
        [], description="columns, as of site or sex, whose values are looked at one by one in the evaluation"
    )
    general_text: str | None = Field(
        None,
        description="general text for objective.general_weight, .txt with a blank line between passages; null: the "
        "base model writes passages by itself before the training",
    )
    true_probability_column: str | None = Field(
        None, description="column of the probability that the last label was drawn from, for simulated rows"
    )
    max_train_rows: Count | None = Field(None, description="rows of train to use, drawn by run.seed; null: all")
    max_eval_rows: Count | None = Field(None, description="rows to use of each other split; null: all")
    max_prompt_tokens: Count = Field(1024, description="tokens of a prompt; a longer text loses its middle")
    max_explanation_tokens: Count = Field(256, description="tokens of an explanation; a longer one loses its end")

    @field_validator("text_template")
    @classmethod
    def _template_names_columns(cls, template: str | None) -> str | None:
        if template is None:
            return None
        try:
            fields = [field[1:] for field in string.Formatter().parse(template) if field[1] is not None]
        except ValueError as error:
            raise ValueError(f"{error}; a brace that is no column is written twice, {{{{ or }}}}") from None
        if not fields or not all(name for name, _, _ in fields):
            raise ValueError("must name the columns of the text, as {claim}")
        if any(set(str(name)) & set(".[") or spec or conversion for name, spec, conversion in fields):
            raise ValueError("takes plain names of columns, as {claim}, without a point, a bracket or a format")
        return template


class Lora(Section):
    rank: Count = Field(16, description="rank of the update")
    alpha: Annotated[float, Field(gt=0)] = Field(32.0, description="scale; the update is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="dropout before the update")
    target_modules: str | list[str] = Field("all-linear", description="module names, a pattern, or all-linear")


class FromScratch(Section):
    """A small Llama with random weights and a tokenizer trained on the training rows."""

    hidden_size: Count = Field(128, description="width, channels")
    intermediate_size: Count = Field(384, description="width of the feed-forward part, channels")
    num_layers: Count = Field(2, description="decoder layers")
    num_heads: Count = Field(4, description="attention heads")
    vocab_size: Annotated[int, Field(ge=300)] = Field(1024, description="tokens of the vocabulary")


class Model(Section):
    name_or_path: str | None = Field(None, description="backbone: a folder, or a name on the Hugging Face Hub")
    revision: str | None = Field(None, description="branch, tag or commit on the Hub")
    gguf_file: str | None = Field(None, description="GGUF file inside name_or_path, dequantised when loaded")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the backbone")
    from_scratch: FromScratch | None = Field(None, description="make a small backbone instead of loading one")
    lora: Lora | None = Field(None, description="low-rank adaptation; null: full fine-tuning")
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa",
        description="attention implementation; auto: flash_attention_2 where every worker has a GPU, the package "
        "flash-attn and bf16, else sdpa",
    )
    liger_kernels: bool = Field(
        False,
        description="Liger's kernels for norms, rotary positions and gated feed-forward parts, while training; needs a "
        "GPU and the package liger-kernel",
    )
    gradient_checkpointing: Literal["none", "selective", "full", "auto"] = Field(
        "none",
        description="layers that are computed again in the backward pass rather than kept: none, every second one, "
        "all; auto: as few as fit into memory. true and false, as of earlier versions, mean full and none",
    )
    activation_offload: bool = Field(
        False,
        description="inputs of layers that are computed again wait in pinned CPU memory for the backward pass; needs "
        "a GPU",
    )

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _was_a_switch(cls, value: Any) -> Any:
        return {True: "full", False: "none"}[value] if isinstance(value, bool) else value


class Objective(Section):
    w_cls: Weight = Field(
        1.0,
        description="weight of the classification loss, nats a row; 0: no head is trained, and the likelihoods of the "
        "verdicts in the model's own words give the probabilities",
    )
    w_gen: Weight = Field(1.0, description="weight of the language-model loss, nats a token")
    kl_weight: Weight = Field(0.0, description="weight of KL(base || tuned) on explanation tokens, nats a token")
    general_weight: Weight = Field(
        0.0, description="weight of KL(base || tuned) on general text, nats a token; keeps the backbone's language"
    )
    general_passages: Count = Field(4, description="passages of general text an optimizer step, over all workers")
    general_tokens: Annotated[int, Field(ge=8)] = Field(64, description="tokens of such a passage, at most")
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="mass that the true label gives to all labels")
    class_weights: Literal["balanced"] | list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="weight of each label in the classification loss, or balanced; null: all 1"
    )


class Calibrate(Section):
    method: Literal["auto", "none", "temperature", "platt", "vector", "beta", "isotonic"] = Field(
        "auto",
        description="map from head logits to probabilities; auto: the one of least cross-validated loss, within a "
        "quarter of a standard error the one with fewest parameters; of two labels and few rows, an average",
    )
    max_temperature: Annotated[float, Field(gt=1)] = Field(100.0, description="bound of the temperature, and 1/bound")
    prior: dict[str, Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None, description="share of each label where the model will be used; null: as in the calibration rows"
    )
    threshold: Literal["best_f1", "precision", "recall", "cost", "top_share"] = Field(
        "best_f1",
        description="how the operating threshold of two labels is chosen: largest F1, precision or recall of at least "
        "threshold_value, cost of a false alarm over that of a miss, or share of rows to flag at most",
    )
    threshold_value: Annotated[float, Field(gt=0)] | None = Field(
        None, description="precision, recall, cost ratio or share that calibrate.threshold asks for"
    )
