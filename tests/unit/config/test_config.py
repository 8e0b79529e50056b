"""A whole run configuration: what is read, what is refused in which words, what --help says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from clsgen_dist.config import checkpoint, evaluate, explain, predict, sections, services, train, verbalize
from clsgen_dist.config.run import (
    RunConfig,
    differing_keys,
    dump_config,
    help_text,
    label_text,
    load_config,
    settings,
)
from clsgen_dist.data.synthetic import MAX_ROWS
from clsgen_dist.errors import ConfigError

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.yaml") if not path.name.startswith("compare_"))

VALID = """\
run:
  name: x
task:
  question: Urgent?
  labels: [no, yes]
data:
  train: rows.jsonl
model:
  name_or_path: some/backbone
"""


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(VALID, encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    assert error.value.exit_code == 2
    return str(error.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    config = load_config(path)
    assert config.run.name


def test_the_demo_is_an_example() -> None:
    assert "demo.yaml" in [path.name for path in EXAMPLES]


def test_defaults_fill_what_the_file_leaves_out(file: Path) -> None:
    config = load_config(file)
    assert config.task.labels == ["no", "yes"]
    assert config.num_labels == 2
    assert config.train == train.Train()
    assert config.folder == ROOT / "runs" / "x"


def test_overrides_win(file: Path) -> None:
    config = load_config(file, ["--train.learning_rate", "1e-5", "--model.lora.rank=4", "--task.labels", "[a, b, c]"])
    assert config.train.learning_rate == 1e-5
    assert config.model.lora == sections.Lora(rank=4)
    assert config.num_labels == 3


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["--run.name", "7"], "7"),
        (["--run.name=1e-4"], "1e-4"),
        (["--run.name", "true"], "true"),
        (["--run.name", "no"], "no"),
        (["--run.name", "a", "--run.name", "b"], "b"),
    ],
)
def test_a_text_setting_takes_the_words_as_typed(file: Path, overrides: list[str], name: str) -> None:
    assert load_config(file, overrides).run.name == name


@pytest.mark.parametrize(
    ("word", "policy"), [("true", "full"), ("false", "none"), ("selective", "selective"), ("auto", "auto")]
)
def test_a_policy_of_recomputation_was_a_switch_once(file: Path, word: str, policy: str) -> None:
    config = load_config(file, ["--model.gradient_checkpointing", word])
    assert config.model.gradient_checkpointing == policy
    assert f"gradient_checkpointing: {policy}" in dump_config(config)
    assert "'full'" in refused(file, "--model.gradient_checkpointing", "1")


def test_text_that_looks_like_yaml_stays_text(file: Path) -> None:
    config = load_config(file, ["--task.question", "a: b", "--task.prompt_template", "[{text}]", "--tracking.uri", "7"])
    assert config.task.question == "a: b"
    assert config.task.prompt_template == "[{text}]"
    assert config.tracking.uri == "7"


def test_null_is_null_where_a_text_may_be_null(file: Path) -> None:
    assert load_config(file, ["--data.group_column", "null"]).data.group_column is None


def test_a_text_or_list_setting_takes_both(file: Path) -> None:
    config = load_config(file, ["--model.lora.target_modules", "q_proj"])
    assert config.model.lora is not None
    assert config.model.lora.target_modules == "q_proj"
    config = load_config(file, ["--model.lora.target_modules", "[q_proj, v_proj]"])
    assert config.model.lora is not None
    assert config.model.lora.target_modules == ["q_proj", "v_proj"]


def test_a_section_that_is_taken_back_leaves_nothing_behind(file: Path) -> None:
    words = ["--model.lora.target_modules", "q_proj", "--model.lora", "null"]
    assert load_config(file, words).model.lora is None


def test_keys_of_a_label_map_are_compared_as_text(file: Path) -> None:
    overrides = ["--data.label_map", "{1: yes, 0: no, 2.0: no, x: yes}", "--data.label_map.0", "yes"]
    assert load_config(file, overrides).data.label_map == {"1": "yes", "0": "yes", "2": "no", "x": "yes"}


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1.0, "1"), ("1", "1"), (1.5, "1.5"), (True, "true"), ("true", "true"), ("A", "A")]
)
def test_label_text(value: object, text: str) -> None:
    assert label_text(value) == text


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.learning_rat", "train.learning_rate"),
        ("train.lr_rate", "train.learning_rate"),
        ("train.token_bugdet", "train.token_budget"),
        ("predict.token_bugdet", "predict.token_budget"),
        ("train.rank", "model.lora.rank"),
        ("model.lora_rank", "model.lora.rank"),
        ("model.kl_weight", "objective.kl_weight"),
        ("trian.epochs", "train"),
        ("trakcing.uri", "tracking"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(file: Path, key: str, nearest: str) -> None:
    message = refused(file, f"--{key}", "1")
    assert message.splitlines()[-1].endswith(f"the nearest valid key is {nearest}")
    assert "unknown key" in message
    assert message.startswith(f"--{key}" if "trian" not in key and "trak" not in key else str(file))


def test_an_unknown_key_without_a_near_one_names_all_of_its_section(file: Path) -> None:
    told = "--tracking.zzz: unknown key tracking.zzz; tracking has uri, experiment, parent_run_id"
    assert refused(file, "--tracking.zzz", "1") == told
    message = refused(file, "--qqqq.zzz", "1")
    assert "unknown key qqqq; a configuration has run, task, data, model, objective" in message


def test_an_unknown_key_in_a_file_is_named_with_its_line(file: Path) -> None:
    file.write_text(VALID + "train:\n  epochs: 2\n  learning_rat: 1\n", encoding="utf-8")
    assert refused(file) == (f"{file}:12: unknown key train.learning_rat; the nearest valid key is train.learning_rate")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--train.epochs=two", "train.epochs: Input should be a valid integer; found 'two'"),
        ("--train.epochs=1.0", "train.epochs: Input should be a valid integer; found 1.0"),
        ("--train.epochs=true", "train.epochs: Input should be a valid integer; found True"),
        ("--train.epochs=0", "train.epochs: Input should be greater than or equal to 1; found 0"),
        ("--train.epochs=null", "train.epochs: Input should be a valid integer; found None"),
        ("--train.learning_rate=-1", "train.learning_rate: Input should be greater than 0; found -1"),
        ("--train.learning_rate=1e400", "train.learning_rate: Input should be a finite number; found inf"),
        ("--train.precision=fp16", "train.precision: Input should be 'bf16' or 'fp32'; found 'fp16'"),
        ("--model.trust_remote_code=yes", "Input should be a valid boolean; found 'yes'"),
        ("--run.name=../x", "run.name: String should match pattern"),
        ("--run.name=a/b", "run.name: String should match pattern"),
        ("--run.name=", "run.name: String should match pattern"),
        ("--task.labels=no", "task.labels: Input should be a valid list; found 'no'"),
        ("--task.labels=[no]", "task.labels: found 1 label(s), expected at least two"),
        ("--task.labels=[0, a]", "task.labels.0: Input should be a valid string; found 0"),
        ("--task.labels=[no, ' NO']", "task.labels: labels must differ by more than case and space"),
        ("--task.labels=[no, ' ']", "task.labels: a label without a name"),
        ("--task.prompt_template=Urgent?", "task.prompt_template: must hold {text} exactly once"),
        ("--task.prompt_template={text}{text}", "task.prompt_template: must hold {text} exactly once"),
        ("--task.verdict_template=so", "task.verdict_template: must hold {label} exactly once"),
        ("--task.question=", "task.question: String should have at least 1 character"),
        (
            "--objective.class_weights=5",
            "objective.class_weights: expected balanced or list of number or null; found 5",
        ),
        ("--objective.class_weights=[1, -2]", "objective.class_weights.1: Input should be greater than 0; found -2"),
        ("--model.lora.target_modules=[1]", "model.lora.target_modules.0: Input should be a valid string; found 1"),
        ("--model.lora=5", "model.lora: Input should be a valid dictionary or instance of Lora; found 5"),
        ("--data.label_map={1: 0}", "data.label_map.1: Input should be a valid string; found 0"),
        ("--data.split_fractions.test=0", "data.split_fractions.test: Input should be greater than 0; found 0"),
        ("--train.adam_betas=[0.9]", "train.adam_betas: List should have at least 2 items"),
    ],
)
def test_a_wrong_value_is_one_line_with_place_key_and_what_was_found(file: Path, override: str, message: str) -> None:
    found = refused(file, override)
    assert message in found
    assert found.startswith(override.partition("=")[0] + ": ")
    assert "\n" not in found


def test_what_is_missing_is_named_with_the_place_of_its_parent(file: Path) -> None:
    file.write_text(VALID.replace("  name: x\n", "  seed: 1\n"), encoding="utf-8")
    assert refused(file) == f"{file}:1: run.name is missing, and has no default"
    file.write_text("run: {name: x}\n", encoding="utf-8")
    assert [line.removeprefix(f"{file}: ") for line in refused(file).splitlines()] == [
        f"{section} is missing, and has no default" for section in ("task", "data", "model")
    ]


def test_all_faults_are_reported_at_once(file: Path) -> None:
    message = refused(file, "--train.epochs=0", "--trian.x=1", "--run.name=/")
    assert len(message.splitlines()) == 3


def test_a_very_long_value_is_cut(file: Path) -> None:
    assert len(refused(file, f"--train.epochs={'x' * 5000}")) < 300


def test_a_key_that_is_no_text_is_refused(file: Path) -> None:
    file.write_text(VALID + "1: 2\n", encoding="utf-8")
    assert "Keys should be strings; found 1" in refused(file)


def test_a_configuration_is_frozen(file: Path) -> None:
    config = load_config(file)
    with pytest.raises(ValidationError):
        config.run = sections.Run(name="y")
    with pytest.raises(ValidationError):
        config.train.epochs = 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_read_back_as_they_were_dumped(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == config


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=20) | st.from_regex(
    r"\A[-+]?[0-9]+(e[-+]?[0-9]+)?\Z"
)


@given(
    question=texts.filter(bool),
    uri=st.none() | texts,
    seed=st.integers(0, 2**63 - 1),
    rate=st.floats(0, 1, exclude_min=True),
)
@hypothesis_settings(max_examples=50)
def test_any_configuration_reads_back(
    tmp_path_factory: pytest.TempPathFactory, question: str, uri: str | None, seed: int, rate: float
) -> None:
    config = RunConfig(
        run=sections.Run(name="1e5", seed=seed),
        task=sections.Task(question=question, labels=["09", "1e-4", "no"]),
        data=sections.Data(train="rows.jsonl", label_map={"1": "no"}),
        model=sections.Model(name_or_path="x"),
        train=train.Train(learning_rate=rate),
        tracking=services.Tracking(uri=uri),
    )
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    assert load_config(path) == config


def test_a_dump_spells_every_setting_out(file: Path) -> None:
    text = dump_config(load_config(file))
    assert all(f" {name.rsplit('.', 1)[-1]}:" in text for name, _ in settings() if name.count(".") == 1)


def test_differing_keys(file: Path) -> None:
    one = load_config(file)
    other = load_config(file, ["--train.epochs", "3", "--model.lora.rank", "4"])
    assert differing_keys(one, one) == []
    assert {"train.epochs", "model.lora.rank"} <= set(differing_keys(one, other))
    assert all(key == "train.epochs" or key.startswith("model.lora") for key in differing_keys(one, other))


def test_help_lists_every_setting_with_a_description_and_a_default() -> None:
    lines = help_text().splitlines()
    heads, bodies = lines[::2], lines[1::2]
    assert len(heads) == len(bodies) == len(dict(settings()))
    for (name, info), head, body in zip(settings(), heads, bodies, strict=True):
        assert head.startswith(f"  --{name} ")
        assert info.description
        assert info.description in body
        assert body.endswith(")")
        assert "(required)" in body or "(default " in body


def test_every_field_of_every_section_is_a_setting() -> None:
    def leaves(model: type[BaseModel], prefix: str) -> list[str]:
        names: list[str] = []
        for name, info in model.model_fields.items():
            inner = [
                kind
                for module in (sections, checkpoint, evaluate, explain, predict, services, train, verbalize)
                for kind in vars(module).values()
                if _is_section(kind) and kind.__name__ in str(info.annotation)
            ]
            names += leaves(inner[0], f"{prefix}{name}.") if inner else [prefix + name]
        return names

    assert set(leaves(RunConfig, "")) <= set(dict(settings()))


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@pytest.mark.parametrize(
    "line",
    [
        "--run.name text",
        "--task.labels list of text",
        "--data.label_map mapping or null",
        "--model.lora section or null",
        "--model.lora.target_modules text or list of text",
        "--model.attention auto | sdpa | eager | flash_attention_2",
        "--model.trust_remote_code true | false",
        "--objective.class_weights balanced or list of number or null",
        "--train.epochs integer",
        "--train.max_steps integer or null",
        "--train.learning_rate number",
    ],
)
def test_help_names_types_in_words(line: str) -> None:
    assert f"  {line}\n" in help_text()


def test_help_writes_defaults_on_one_line() -> None:
    text = help_text()
    assert r"(default {question}\nAnswer with one of: {labels}. Then give the reason.\n\n{text}\n\nAnswer:)" in text
    assert "(default null)" in text
    assert "(default false)" in text
    assert "(default [0.9, 0.999])" in text
    assert "(default see below)" in text


def test_settings_of_the_contract_exist() -> None:
    contract = """
        run: name, output_dir, seed
        task: question, labels
        data: train, validation, calibration, test, text_column, label_column, explanation_column, group_column,
            max_train_rows
        model: name_or_path, gguf_file, lora
        model.lora: rank, alpha, dropout, target_modules
        objective: w_cls, w_gen, kl_weight
        train: epochs, max_steps, global_batch, token_budget, learning_rate, head_learning_rate, precision, num_workers,
            checkpoint_steps, deepspeed
        explain: teacher
        tracking: uri, experiment
    """.replace(",\n            ", ", ")
    known = dict(settings())
    for line in contract.strip().splitlines():
        section, _, names = line.strip().partition(": ")
        assert [name for name in names.split(", ") if f"{section}.{name}" not in known] == []


def test_vignettes_are_as_many_as_the_generator_can_make(file: Path) -> None:
    overrides = ["--data.train", "null", "--data.vignettes.num_test"]
    assert load_config(file, [*overrides, str(MAX_ROWS)]).data.vignettes
    assert "less than or equal to 1000000" in refused(file, *overrides, str(MAX_ROWS + 1))


def run_python(code: str, arguments: Sequence[str] = ()) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def test_configurations_load_without_anything_heavy() -> None:
    code = (
        "import json, sys\n"
        "from clsgen_dist.config.run import help_text, load_config\n"
        "load_config(sys.argv[1]), help_text()\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    loaded = set(json.loads(run_python(code, ["examples/demo.yaml"])))
    heavy = {"torch", "transformers", "deepspeed", "ray", "mlflow", "numpy", "pandas", "sklearn", "datasets", "peft"}
    assert not loaded & heavy


def test_keys_in_the_address_of_a_store_are_refused_and_not_repeated(file: Path) -> None:
    message = refused(file, "--run.storage", "s3://a-key:a-secret@runs/x")
    assert "with no keys and no options in it" in message
    assert "a-secret" not in message
