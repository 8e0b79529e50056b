"""launchers/predict.py: killed in the middle, or on the actors of a cluster, it gives the same lines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clsgen_dist.errors import BundleError
from clsgen_dist.launch import predict_request
from clsgen_dist.predict.files import predict_file
from clsgen_dist.progress import Event, silent
from tests.support.bundles import write_tiny_bundle
from tests.support.tiny import ROOT, tiny_rows, write_jsonl

SETTINGS = ["--explain", "uncertain", "--predict.uncertain_margin", "0.03", "--predict.token_budget", "150"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def words(bundle: Path, source: Path, output: Path) -> list[str]:
    return ["--bundle", str(bundle), "--input", str(source), "--output", str(output), *SETTINGS]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launchers" / "predict.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


def test_killed_in_the_middle_it_goes_on_with_the_same_lines(bundle: Path, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "rows.jsonl", tiny_rows(160, seed=1)), tmp_path / "out.jsonl"
    predict_file(predict_request(words(bundle, source, tmp_path / "whole.jsonl")), silent)
    arguments = words(bundle, source, output)
    killed = start(arguments)
    deadline = time.monotonic() + 120
    try:
        while not list(tmp_path.glob("out.jsonl.parts/journal-*")) and time.monotonic() < deadline:
            assert killed.poll() is None, killed.communicate()[0]
            time.sleep(0.005)
    finally:
        killed.kill()
        killed.wait(30)
        killed.communicate()
    (journal,) = tmp_path.glob("out.jsonl.parts/journal-*")
    assert 0 < len(journal.read_bytes().splitlines()) < 160
    assert not output.exists()
    again = start(arguments)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "160 predictions" in said
    assert "predict: 160/160, done" in said
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.ray
def test_actors_of_a_cluster_give_the_same_lines(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five windows two are there already, and one is begun."""
    from clsgen_dist.orchestrate.ray_predict import hire_on_ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # of the actors
    source = write_jsonl(tmp_path / "rows.jsonl", tiny_rows(90, seed=1))
    alone = predict_request(words(bundle, source, tmp_path / "alone.jsonl"))
    predict_file(alone, silent, window_rows=20)
    shared = predict_request([*words(bundle, source, tmp_path / "shared.jsonl"), "--predict.num_workers", "2"])
    heard: list[Event] = []

    def stop(event: Event) -> None:
        if event.done > 45:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(predict_request(words(bundle, source, shared.output)), stop, window_rows=20)
    assert len(list(tmp_path.glob("shared.jsonl.parts/part-*"))) == 2
    assert len(list(tmp_path.glob("shared.jsonl.parts/journal-*"))) == 1
    assert predict_file(shared, heard.append, hire=hire_on_ray, window_rows=20) == 90
    assert shared.output.read_bytes() == alone.output.read_bytes()
    assert heard[-1].done == 90
    # A fault that an actor meets comes home as what it is.
    again = predict_request([*words(bundle, source, tmp_path / "again.jsonl"), "--predict.num_workers", "2"])
    with pytest.raises(BundleError, match="no/such/base is not the base model"):
        predict_file(replace(again, base="no/such/base"), silent, hire=hire_on_ray, window_rows=20)
    assert not again.output.exists()
