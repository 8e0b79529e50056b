"""The server in front of a real, tiny bundle: answers, refusals that name the limit and hold no text, request ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.errors import BundleError, ConfigError
from clsgen_dist.predict.predictor import recalibrated
from clsgen_dist.serve.answering import MAX_ROWS, Answerer, open_answerer
from clsgen_dist.serve.app import make_app
from clsgen_dist.serve.running import register_request, serve_request
from tests.support.bundles import write_tiny_bundle

#: Words that no answer may hold when it refuses.
SECRET = "confidential diagnosis"
MAX_BYTES = 4096


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    return open_answerer(write_tiny_bundle(tmp_path_factory.mktemp("serve")))


@pytest.fixture(scope="module")
def client(answerer: Answerer) -> Iterator[TestClient]:
    with TestClient(make_app(answerer, max_bytes=MAX_BYTES)) as client:
        yield client


def ask(client: TestClient, body: Any, **headers: str) -> Any:
    return client.post("/invocations", json=body, headers=headers)


def test_one_row_with_its_explanation(client: TestClient) -> None:
    answer = ask(client, {"dataframe_records": [{"text": "fever"}], "params": {"explain": True}})
    assert answer.status_code == 200
    (found,) = answer.json()["predictions"]
    assert set(found["probability"]) == {"no", "yes"}
    assert sum(found["probability"].values()) == pytest.approx(1)
    assert found["predicted"] == max(found["probability"], key=found["probability"].get)
    assert isinstance(found["explanation"], str)
    assert found["calibrated"] is False
    assert found["model_version"] == "unregistered, run tiny"


def test_a_batch_keeps_ids_and_order_and_says_what_single_rows_say(client: TestClient) -> None:
    texts = ["fever " * n + "calm" for n in (9, 1, 5)]
    rows = [{"text": text, "id": f"r{n}"} for n, text in enumerate(texts)]
    batch = ask(client, {"dataframe_records": rows}).json()["predictions"]
    assert [row["id"] for row in batch] == ["r0", "r1", "r2"]
    assert [row["explanation"] for row in batch] == [None] * 3
    for row, text in zip(batch, texts, strict=True):
        (alone,) = ask(client, {"dataframe_split": {"columns": ["text"], "data": [[text]]}}).json()["predictions"]
        assert alone["probability"]["yes"] == pytest.approx(row["probability"]["yes"], abs=1e-5)


def test_a_calibrated_bundle_says_so(answerer: Answerer) -> None:
    calibrator = Calibrator("temperature", {"temperature": (2.0,)}, 100)
    fitted = recalibrated(answerer.predictor.bundle, calibrator, 0.4)
    (found,) = Answerer(replace(answerer.predictor, bundle=fitted), "m/1").answer([{"text": "fever"}], {})
    assert (found["calibrated"], found["threshold"], found["model_version"]) == (True, 0.4, "m/1")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"dataframe_records": [{"text": SECRET}], "params": {"explian": True}}, 400, "explian"),
        ({"dataframe_records": [{"text": SECRET}], "params": {"explain": 1}}, 400, "true or false"),
        ({"dataframe_records": [{"text": SECRET}], "params": {"max_new_tokens": True}}, 400, "whole number"),
        ({"dataframe_records": [{"text": SECRET}], "params": {"max_new_tokens": 0}}, 422, "1 to 12"),
        ({"dataframe_records": [{"text": SECRET}], "params": [1]}, 400, "object"),
        ({"dataframe_records": [{"text": SECRET}], "parms": {}}, 400, "nothing else"),
        ({"dataframe_records": [{"text": 7}]}, 400, "strings"),
        ({"dataframe_records": [{"text": SECRET, "id": 3}]}, 400, "strings"),
        ({"dataframe_records": [{"text": SECRET, "note": SECRET}]}, 400, "text, id"),
        ({"dataframe_records": [{"note": SECRET}]}, 400, "object with text"),
        ({"dataframe_records": [SECRET]}, 400, "object with text"),
        ({"dataframe_records": {"text": SECRET}}, 400, "list"),
        ({"dataframe_records": []}, 422, "at least one"),
        ({"dataframe_records": [{"text": "  "}]}, 422, "empty"),
        ({"dataframe_records": [{"text": SECRET + "\ud800"}]}, 400, "surrogate"),
        ({"dataframe_records": [{"text": "a"}] * (MAX_ROWS + 1)}, 422, f"limit is {MAX_ROWS}"),
        ({"dataframe_records": [{"text": f"{SECRET} " * 40}]}, 422, "the limit is"),
        ({"dataframe_split": {"columns": ["text"], "data": [[SECRET, SECRET]]}}, 400, "rows as long"),
        ({"inputs": [SECRET]}, 400, "dataframe_records"),
        ([SECRET], 400, "object"),
    ],
)
def test_what_cannot_be_answered_is_refused_without_its_text(
    client: TestClient, body: Any, status: int, words: str
) -> None:
    answer = client.post("/invocations", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert words in answer.json()["message"]
    assert "Traceback" not in answer.text
    assert "confidential" not in answer.text


def test_the_limit_of_a_text_is_the_last_length_that_is_not_cut(client: TestClient, answerer: Answerer) -> None:
    tokenizer, most = answerer.predictor.bundle.tokenizer, answerer.max_text_tokens
    text = "z" * most
    assert tokenizer.count_text_tokens([text]) == [most]
    before = tokenizer.num_cut_prompts
    assert ask(client, {"dataframe_records": [{"text": text}]}).status_code == 200
    assert tokenizer.num_cut_prompts == before
    answer = ask(client, {"dataframe_records": [{"text": text + "z"}]})
    assert answer.status_code == 422
    assert f"has {most + 1} tokens, the limit is {most}" in answer.json()["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"dataframe_records": NaN}', b"[" * 3000])
def test_what_is_not_json_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/invocations", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "NOT_JSON")


def test_other_content_is_refused(client: TestClient) -> None:
    answer = client.post("/invocations", content="text\nfever\n", headers={"Content-Type": "text/csv"})
    assert answer.status_code == 415


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_refused(client: TestClient, declared: bool) -> None:
    parts = [b"x" * 1024] * 5
    content: Any = b"".join(parts) if declared else iter(parts)
    answer = client.post("/invocations", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert str(MAX_BYTES) in answer.json()["message"]


def test_request_ids_come_back(client: TestClient) -> None:
    body = {"dataframe_records": [{"text": "fever"}]}
    answer = ask(client, body, **{"X-Request-ID": "abc-7"})
    assert (answer.headers["X-Request-ID"], answer.json()["request_id"]) == ("abc-7", "abc-7")
    strange = ask(client, body, **{"X-Request-ID": "a b<script>"})
    assert len(strange.json()["request_id"]) == 32
    refused = ask(client, {}, **{"X-Request-ID": "abc-8"})
    assert (refused.headers["X-Request-ID"], refused.json()["request_id"]) == ("abc-8", "abc-8")


def test_a_fault_of_the_model_is_no_window_into_it(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Answerer, "answer", fail)
    with TestClient(make_app(answerer)) as client:
        answer = ask(client, {"dataframe_records": [{"text": SECRET}]})
    assert answer.status_code == 500
    assert "confidential" not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text


def test_health_and_version(client: TestClient, answerer: Answerer) -> None:
    assert client.get("/health").status_code == 200
    told = client.get("/version").json()
    limits = {"bytes": MAX_BYTES, "rows": MAX_ROWS, "text_tokens": answerer.max_text_tokens}
    assert told["limits"] == limits | {"waiting_requests": 64, "seconds": 60}
    assert (told["calibrated"], told["model_version"]) == (False, "unregistered, run tiny")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle here"):
        open_answerer(tmp_path)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "either --model"),
        ({"model": "models:/a@b", "bundle": "x"}, "either --model"),
        ({"model": "models:/a@b"}, "--tracking.uri"),
        ({"bundle": "x", "port": "0"}, "--port"),
        ({"bundle": "x", "max_bytes": "much"}, "--max-bytes"),
    ],
)
def test_options_that_cannot_be(found: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=words):
        serve_request(found, [])


def test_options_of_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a.db")
    assert register_request({"bundle": "b", "name": "n"}, []).uri == "sqlite:///a.db"
    for found, rest, words in (
        ({"name": "n"}, [], "--bundle is missing"),
        ({"bundle": "b", "name": "a/b"}, [], "--name"),
        ({"bundle": "b", "name": "n", "alias": "a@b"}, [], "--alias"),
        ({"bundle": "b", "name": "n"}, ["--nmae"], "unknown"),
    ):
        with pytest.raises(ConfigError, match=words):
            register_request(found, rest)
