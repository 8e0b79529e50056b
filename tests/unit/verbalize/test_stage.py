"""Files of answers -> results, and the files that cannot be used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.chat.interface import ENDED_EARLY, UNREADABLY_LONG, WITHHELD, Completion
from clsgen_dist.config.answers import AnswersRequest, answers_config, plain_answers_config
from clsgen_dist.config.run import dump_config
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.launch import UNUSABLE
from clsgen_dist.progress import Listener, silent
from clsgen_dist.records import Row
from clsgen_dist.summary import verbalized_summary
from clsgen_dist.verbalize.collecting import Collected
from clsgen_dist.verbalize.stage import _check_rows, _understood, _write_answers, calibrate_answers, verbalize_run
from tests.support.forecaster import forecast, forecast_rows
from tests.support.tiny import tiny_config, write_jsonl

#: What design.md promises of every method.
CONTRACT = ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label")
METHODS = ("raw", "resoftmax_temperature", "invert_softmax_temperature", "platt")


def said_of(num_rows: int, *, seed: int = 0, prefix: str = "") -> list[dict[str, Any]]:
    """Answers of an overconfident model: id, label, answer."""
    return [
        {"id": prefix + row["id"], "label": row["label"], "answer": forecast([{"content": row["text"]}], 0)}
        for row in forecast_rows(num_rows, seed=seed)
    ]


def calibrate(
    folder: Path, lines: list[dict[str, Any]], others: list[dict[str, Any]] | None = None, *overrides: str
) -> dict[str, Any]:
    """metrics.json of a calibration."""
    answers = write_jsonl(folder / "answers.jsonl", lines)
    fit = None if others is None else write_jsonl(folder / "others.jsonl", others)
    config = plain_answers_config("no,yes", ["--evaluate.num_bootstrap", "100", *overrides])
    output = calibrate_answers(AnswersRequest(config, answers, fit, folder / "out"))
    found: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of 2,000 answers, one half fitted on."""
    folder = tmp_path_factory.mktemp("answers")
    calibrate(folder, said_of(2000))
    return folder / "out"


def test_results_are_as_the_contract_says(done: Path) -> None:
    assert {"fits.json", "metrics.json", "report.html"} <= {path.name for path in done.iterdir()}
    metrics = json.loads((done / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_rows"] + metrics["num_fit_rows"] == 2000
    assert 0.8 < metrics["parse_rate"] < 0.9
    assert set(metrics["failures"]) == {"refusal", "no_distribution", "duplicate_label"}
    assert sum(metrics["failures"].values()) == metrics["num_rows"] - metrics["num_parsed_rows"]
    for name in METHODS:
        for part in (metrics[name], metrics["all_rows"][name]):
            assert all(math.isfinite(part[metric]) for metric in CONTRACT), name
            assert part["nll_ci"][0] <= part["nll"] <= part["nll_ci"][1]
        assert metrics["all_rows"][name]["num_rows"] == metrics["num_rows"]
        assert metrics[name]["num_rows"] == metrics["num_parsed_rows"]
    assert {name for name in METHODS if "temperature" in metrics[name]} == set(METHODS[1:3])


def test_inverting_the_softmax_beats_taking_it_twice(done: Path) -> None:
    """What was said is softmax(2 z): a temperature of 2 on the inverse is right."""
    metrics = json.loads((done / "metrics.json").read_text(encoding="utf-8"))
    inverse, twice = metrics["invert_softmax_temperature"], metrics["resoftmax_temperature"]
    assert inverse["nll"] < twice["nll"] < metrics["raw_floored"]["nll"]
    assert inverse["temperature"] == pytest.approx(2, abs=0.35)
    # "3%" and "0.03" differ in the last digit, which may tie or not after scaling.
    assert inverse["auroc"] == pytest.approx(metrics["raw_floored"]["auroc"], abs=5e-4)


def test_the_same_files_give_the_same_results(done: Path, tmp_path: Path) -> None:
    again = calibrate(tmp_path, said_of(2000))
    assert again == json.loads((done / "metrics.json").read_text(encoding="utf-8"))
    assert (tmp_path / "out" / "fits.json").read_bytes() == (done / "fits.json").read_bytes()


def test_the_table_shows_every_method_and_every_failure(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text(encoding="utf-8"))
    table = verbalized_summary(done)
    assert f"understood {metrics['num_parsed_rows']:,} of {metrics['num_rows']:,} answers" in table
    assert f"refusal {metrics['failures']['refusal']}" in table
    lines = {line[2:].split()[0]: line for line in table.splitlines() if line[:2] in ("  ", "* ")}
    for name in METHODS:
        assert f"{metrics[name]['nll']:.4f}" in lines[name]
        assert lines[name].endswith(f"{metrics['all_rows'][name]['nll']:.4f}")
    assert [name for name in lines if f"* {name}" in table] == [metrics["chosen"], "chosen"]
    assert max(map(len, table.splitlines()[:-1])) <= 120


def test_other_answers_to_fit_on(tmp_path: Path) -> None:
    """Labels by number and by name, unknown ones, groups, texts, and a null for an answer that never came."""
    lines = [
        line | {"text": f"A text, number {n}.", "group": n // 2} for n, line in enumerate(said_of(300, prefix="t"))
    ]
    for n, line in enumerate(lines):
        line["label"] = None if n < 40 else ("no", "yes")[line["label"]] if n % 2 else line["label"]
    lines[60]["answer"] = None
    others = [line | {"text": f"Another text, number {n}."} for n, line in enumerate(said_of(200, seed=1))]
    metrics = calibrate(tmp_path, lines, others)
    assert (metrics["num_fit_rows"], metrics["num_rows"], metrics["num_labelled_rows"]) == (200, 300, 260)
    assert metrics["failures"]["no_answer"] == 1
    assert "learned" in metrics, "there are texts to learn from"
    fits = json.loads((tmp_path / "out" / "fits.json").read_text(encoding="utf-8"))
    assert set(fits["origin"]) == {"answers 1", "answers 2"}


def test_a_line_for_every_row_that_was_measured(tmp_path: Path) -> None:
    lines = said_of(300)
    lines[7]["answer"] = "Perhaps."
    lines[9]["answer"] = "no: 35%, yes: 67%"
    metrics = calibrate(tmp_path, lines, said_of(200, seed=1, prefix="f"))
    found = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert len(found) == metrics["num_rows"] == 300
    assert all(sum(line["probability"].values()) == pytest.approx(1, abs=1e-9) for line in found)
    assert {line["method"] for line in found if line["said"]} == {metrics["chosen"]}
    assert (found[7]["said"], found[7]["method"], found[7]["fault"]) == (
        None,
        "base_rate",
        "no_distribution",
    )
    assert list(found[7]["probability"].values()) == pytest.approx(metrics["label_shares"])
    assert found[9]["raw_sum"] == pytest.approx(1.02)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="a file stands there"):
        calibrate(tmp_path, SOUND)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_settings_have_their_effect(tmp_path: Path) -> None:
    words = ("--verbalize.floor", "0.02", "--verbalize.constant", "zero", "--calibrate.max_temperature", "1.5")
    metrics = calibrate(tmp_path, said_of(300), None, *words)
    assert (metrics["floor"], metrics["constant"], metrics["is_floor_default"]) == (0.02, "zero", False)
    assert metrics["invert_softmax_temperature"]["temperature"] <= 1.5


def one_label(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line | {"label": 1} for line in lines]


def unreadable(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line | {"answer": "Who knows?"} for line in lines]


def changed(lines: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    return [*lines[:6], lines[6] | fields, *lines[7:]]


def without(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [*lines[:6], {key: value for key, value in lines[6].items() if key != name}, *lines[7:]]


SOUND = said_of(100)
BAD = {
    "unknown label": (changed(SOUND, label="maybe"), r"answers\.jsonl:7: unknown label 'maybe'; expected one of"),
    "label out of range": (changed(SOUND, label=2), r"answers\.jsonl:7: unknown label '2'"),
    "id twice": (changed(SOUND, id="row-2"), r"answers\.jsonl:7: has the id 'row-2', as .*answers\.jsonl:3 has"),
    "no answer": (without(SOUND, "answer"), r"answers\.jsonl:7: no 'answer'"),
    "no label": (without(SOUND, "label"), r"answers\.jsonl:7: no 'label'"),
    "parsed before": (changed(SOUND, answer={"no": 1, "yes": 99}), r"answers\.jsonl:7: 'answer' is dict"),
    "19 rows": (SOUND[:19], r"half to fit on.*labelled rows can be fitted on, expected at least 20"),
    "one label": (one_label(SOUND), r"of one label, expected at least two"),
    "nothing parsed": (unreadable(SOUND), r"0\.0 % hold a distribution, the most frequent failure is no_distribution"),
    "nothing at all": ([], r"answers\.jsonl: .*no "),
}


@pytest.mark.parametrize(("lines", "message"), BAD.values(), ids=BAD)
def test_answers_that_cannot_be_used(tmp_path: Path, lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        calibrate(tmp_path, lines)
    assert error.value.exit_code == UNUSABLE
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_a_broken_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "answers.jsonl", SOUND)
    path.write_text(path.read_text().replace('{"id": "row-4"', '{"id: "row-4"'))
    request = AnswersRequest(plain_answers_config("no,yes", []), path, None, tmp_path / "out")
    with pytest.raises(DataError, match=r"answers\.jsonl:5: not JSON"):
        calibrate_answers(request)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_fitted_on_are_not_measured_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="share 50 ids, expected none"):
        calibrate(tmp_path, SOUND, SOUND[50:])


def test_results_of_a_model_that_was_asked_are_not_written_over(tmp_path: Path) -> None:
    asked = tmp_path / "out"
    asked.mkdir()
    (asked / "answers.sqlite").touch()
    with pytest.raises(ConfigError, match=r"out: holds what a model was asked for, .* another folder with --output"):
        calibrate(tmp_path, SOUND)
    assert [path.name for path in asked.iterdir()] == ["answers.sqlite"]


def test_a_prior_of_a_whole_run_is_said_to_have_no_effect(tmp_path: Path) -> None:
    prior = {"calibrate.method": "auto", "calibrate.prior": {"no": 0.9, "yes": 0.1}, "evaluate.num_bootstrap": 100}
    (tmp_path / "run.yaml").write_text(dump_config(tiny_config(tmp_path, **prior)), encoding="utf-8")
    config, output = answers_config(str(tmp_path / "run.yaml"), [])
    calibrate_answers(AnswersRequest(config, write_jsonl(tmp_path / "a.jsonl", said_of(100)), None, output))
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["warnings"][0].startswith("calibrate.prior: has no effect here")
    assert "calibrate.prior: has no effect here" in (output / "report.html").read_text(encoding="utf-8")


def rows_of(num_rows: int, group: str | None = None) -> list[Row]:
    return [Row(id=str(n), text=f"text {n}", label=n % 2, group=group) for n in range(num_rows)]


def test_a_test_split_of_one_group_is_refused_before_anybody_is_asked() -> None:
    _check_rows({"calibration": rows_of(20, "g"), "test": rows_of(4)})
    with pytest.raises(DataError, match="the test rows: all 4 labelled rows are of one group, nothing can be measured"):
        _check_rows({"calibration": rows_of(20), "test": rows_of(4, "g")})
    unknown = Row(id="x", text="text", label=None, group="h")
    with pytest.raises(DataError, match="all 4 labelled rows are of one group"):
        _check_rows({"calibration": rows_of(20), "test": [*rows_of(4, "g"), unknown]})


def completion(text: str, fault: str | None = None) -> Completion:
    return Completion(text=text, prompt_tokens=1, completion_tokens=1, fault=fault)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(ENDED_EARLY, "cut_off"), (UNREADABLY_LONG, "too_long"), (WITHHELD, "refusal"), ("empty", "no_answer")],
)
def test_why_there_are_no_words(fault: str, cause: str) -> None:
    assert _understood(completion("", fault), ["no", "yes"], 0.05).fault == cause


def test_a_line_of_answers_says_sum_and_form_of_the_first_one(tmp_path: Path) -> None:
    first = [completion("no: 30%\nyes: 72%"), completion('{"no": 0.25, "yes": 0.5}'), completion("", ENDED_EARLY)]
    second = [completion("no: 10%\nyes: 90%")] * 3
    rows, path = {"test": rows_of(3)}, tmp_path / "answers.jsonl"
    _write_answers(path, tiny_config(tmp_path), rows, Collected({}, {"test": [first, second]}))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["form"] for line in lines] == ["lines", "json", None]
    assert [line["raw_sum"] for line in lines] == [pytest.approx(1.02), pytest.approx(0.75), None]
    assert [line["answer"] for line in lines] == [answer.text for answer in first]


@pytest.mark.parametrize("floor", [None, 0.01])
def test_a_floor_is_set_only_where_somebody_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, floor: float | None
) -> None:
    """With paraphrases the floor of their average is handed on, and is no setting for that."""

    def collected(config: Any, folder: Any, asked: Any, rows: dict[str, list[Row]], listener: Listener) -> Collected:
        said = {split: [completion(forecast([{"content": row.text}], 0)) for row in of] for split, of in rows.items()}
        return Collected({}, {split: [of, of] for split, of in said.items()})

    monkeypatch.setattr("clsgen_dist.verbalize.stage.check_asked", lambda config, folder: None)
    monkeypatch.setattr("clsgen_dist.verbalize.stage.collect", collected)
    write_jsonl(tmp_path / "rows.jsonl", forecast_rows(400))
    asked = {"source": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "floor": floor, "num_prompts": 2}
    settings: dict[str, Any] = {f"verbalize.{name}": value for name, value in asked.items()}
    folder = verbalize_run(tiny_config(tmp_path, **settings, **{"objective.w_gen": 0.0}), silent)
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert found["is_floor_default"] == (floor is None)
    assert floor is None or found["floor"] == floor
