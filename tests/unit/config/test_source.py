"""YAML text and overrides: values, places, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsgen_dist.config.source import ConfigSource, apply_overrides, dump_tree, parse_value, read_source
from clsgen_dist.errors import ConfigError


def read(tmp_path: Path, text: str) -> ConfigSource:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return read_source(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("TRUE", "TRUE"),
        ("FALSE", "FALSE"),
        ("Null", "Null"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("010", 10),
        ("09", 9),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-11-21", "2026-11-21"),
        ("1e-4", 1e-4),
        ("2E3", 2000.0),
        ("-1.5e+2", -150.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        (".inf", ".inf"),
        ("1e", "1e"),
        ("'1e-4'", "1e-4"),
        ("[no, 1e-4]", ["no", 1e-4]),
        ("{1: TRUE, 0: FALSE}", {1: "TRUE", 0: "FALSE"}),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_places_are_file_and_line(tmp_path: Path) -> None:
    source = read(tmp_path, "# head\nrun:\n  name: x\n\ntask:\n  labels:\n    - no\n    - yes\n")
    file = tmp_path / "run.yaml"
    assert source.place(("run",)) == f"{file}:2"
    assert source.place(("run", "name")) == f"{file}:3"
    assert source.place(("task", "labels", 1)) == f"{file}:8"
    assert source.place(("run", "seed")) == f"{file}:2", "a key that stands nowhere: its parent"
    assert source.place(("data",)) == str(file), "a section that stands nowhere: the file"


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("\ufeffrun:\r\n  name: ä\r\n".encode())
    source = read_source(path)
    assert source.tree == {"run": {"name": "ä"}}
    assert source.place(("run", "name")) == f"{path}:2"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such configuration file"):
        read_source(tmp_path / "absent.yaml")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_source(tmp_path)


def test_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"run: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"not UTF-8 \(byte 8\)"):
        read_source(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("# only a comment\n", "found an empty file"),
        ("- a\n- b\n", "found list"),
        ("just words\n", "found str"),
        ("run:\n  name: [1\n", ":3: not YAML"),
        ("run: {a: 1\n", "not YAML"),
        ("run:\n\tname: x\n", ":2: not YAML"),
        ("run: *nowhere\n", ":1: not YAML"),
        ("run: !!python/object:os.system x\n", "not YAML"),
        ("run: \x00\n", "not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, "train:\n  epochs: 1\n  max_steps: 5\n  epochs: 2\n")
    assert message == f"{tmp_path / 'run.yaml'}:4: train.epochs stands here a second time"


def test_a_section_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert ":3: run stands here a second time" in refused(tmp_path, "run: {}\ntask: {}\nrun: {}\n")


def test_anchors_and_aliases_are_read(tmp_path: Path) -> None:
    source = read(tmp_path, "a: &same {x: 1}\nb: *same\n")
    assert source.tree == {"a": {"x": 1}, "b": {"x": 1}}
    assert source.place(("b", "x")).endswith(":2")


def test_an_anchor_that_holds_itself_is_refused(tmp_path: Path) -> None:
    assert "an alias that holds itself" in refused(tmp_path, "run: &loop\n  name: x\n  more: *loop\n")


def overridden(*words: str, tree: dict[str, Any] | None = None) -> ConfigSource:
    source = ConfigSource(tree=tree or {})
    apply_overrides(source, words)
    return source


def test_overrides_take_both_forms_and_build_their_sections() -> None:
    source = overridden("--train.learning_rate", "1e-4", "--model.lora.rank=8", "--task.labels", "[no, yes]")
    assert source.tree == {
        "train": {"learning_rate": 1e-4},
        "model": {"lora": {"rank": 8}},
        "task": {"labels": ["no", "yes"]},
    }
    assert source.place(("train", "learning_rate")) == "--train.learning_rate"
    assert source.texts["train", "learning_rate"] == "1e-4"


def test_an_override_replaces_its_key_only() -> None:
    assert overridden("--a.b.c", "2", tree={"a": {"b": {"c": 1, "d": 1}, "e": 1}}).tree == {
        "a": {"b": {"c": 2, "d": 1}, "e": 1}
    }


def test_an_override_opens_a_section_that_is_null() -> None:
    assert overridden("--model.lora.rank", "8", tree={"model": {"lora": None}}).tree == {"model": {"lora": {"rank": 8}}}


def test_the_last_override_wins_over_what_it_holds() -> None:
    source = overridden("--model.lora.target_modules", "q_proj", "--model.lora", "null")
    assert source.tree == {"model": {"lora": None}}
    assert list(source.texts) == [("model", "lora")]


def test_values_that_look_like_options_and_negative_numbers() -> None:
    assert overridden("--a.b=--c", "--a.d", "-1", "--a.e=x=y", "--a.f=").tree == {
        "a": {"b": "--c", "d": -1, "e": "x=y", "f": None}
    }


@pytest.mark.parametrize("text", ["{a: 1", "*x", "!!python/name:os.system", "[" * 5000])
def test_a_value_that_is_not_yaml_is_text(text: str) -> None:
    assert overridden(f"--a.b={text}").tree == {"a": {"b": text}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epochs", "2"], "'train.epochs': expected --section.key VALUE"),
        (["-x"], "'-x': expected"),
        (["--"], "'--': expected"),
        (["--train.epochs"], "--train.epochs: expected a value after it"),
        (["--train.epochs", "--run.seed", "1"], "expected a value after it, found --run.seed"),
        (["--epochs", "2"], "--epochs: expected --section.key VALUE, for example"),
        (["--train.", "2"], "expected --section.key VALUE, for example"),
        (["--.epochs", "2"], "expected --section.key VALUE, for example"),
        (["--train..epochs", "2"], "expected --section.key VALUE, for example"),
    ],
)
def test_words_that_are_no_override_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        overridden(*words)
    assert message in str(error.value)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=30) | st.from_regex(
    r"\A[-+]?[0-9]*\.?[0-9]*(e[-+]?[0-9]+)?\Z"
)


@given(
    st.dictionaries(texts, st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | texts | st.lists(texts))
)
def test_what_is_dumped_reads_back(tree: dict[str, Any]) -> None:
    assert parse_value(dump_tree(tree)) == tree


@pytest.mark.parametrize("text", ["1e-4", "09", "010", "no", "TRUE", "null", "~", "", "1:30", "1_0", "0x1f", "=", "<<"])
def test_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    assert parse_value(dump_tree({"name": text})) == {"name": text}
