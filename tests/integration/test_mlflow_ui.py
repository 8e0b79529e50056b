"""What a person finds in the MLflow UI of a real server: runs, child runs, metrics by step, report and model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect

from clsgen_dist.bundle import write_bundle
from clsgen_dist.model.build import build_model
from clsgen_dist.observe import RunObserver, open_tracker
from clsgen_dist.prepare import prepare
from clsgen_dist.progress import silent
from clsgen_dist.tracking.mlflow import MlflowTracker
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import StepMetrics
from tests.support.browser import DESKTOP, binary, chromium
from tests.support.evaluated import render, simulate_split
from tests.support.tiny import tiny_config
from tests.support.tracking_server import mlflow_server

NUM_STEPS = 4
CHILDREN = ("joint", "discriminative")

#: The UI draws when it has fetched what it needs.
PATIENCE_MS = 30_000


@dataclass(frozen=True)
class Told:
    """What the server was told.

    Attributes:
        experiment: address of the experiment's page.
        runs: id of each run by its name.
    """

    experiment: str
    runs: dict[str, str]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A training run as rank 0 tells it, and a parent with two children."""
    binary()  # before a server is started for nothing
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as address:
        runs = {"tiny": _tell_a_training(folder, address), **_tell_a_comparison(folder, address)}
        experiment = mlflow.MlflowClient(address).get_experiment_by_name("fever")
        yield Told(f"{address}/#/experiments/{experiment.experiment_id}", runs)


def _tell_a_training(folder: Path, address: str) -> str:
    config = tiny_config(folder, **{"tracking.uri": address, "tracking.experiment": "fever"})
    place = prepare(config)
    tracker = open_tracker(config, place)
    observer = RunObserver(config, 52, tracker, silent)
    for step in range(1, NUM_STEPS + 1):
        state = TrainState(step=step, tokens_seen=100 * step)
        numbers = {field.name: 1.0 for field in fields(StepMetrics)} | {"loss": 1 / step, "num_tokens": 100}
        observer.stepped(state, StepMetrics(**numbers))
    evaluation = place.evaluation("test")
    evaluation.mkdir(parents=True)
    render(evaluation, simulate_split(60, ["no", "yes"], threshold=0.4), ["no", "yes"], 0.4, with_pictures=True)
    tracker.log_artifacts(evaluation, "evaluation/test")
    model = build_model(config.model, str(config.model.name_or_path), 2, dtype=torch.float32, seed=1)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: p.detach() + 0.05 * torch.randn(p.shape, generator=generator)
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    write_bundle(place.bundle, config, str(config.model.name_or_path), weights, np.zeros(0, dtype=np.uint64))
    tracker.log_artifacts(place.bundle, "bundle")
    tracker.close("FINISHED")
    return _known(tracker)


def _tell_a_comparison(folder: Path, address: str) -> dict[str, str]:
    parent = MlflowTracker(address, "fever", "comparison", folder=folder / "comparison", artifacts=None)
    runs = {"comparison": _known(parent)}
    for name in CHILDREN:
        child = MlflowTracker(address, "fever", name, folder=folder / name, artifacts=None, parent=parent.reference)
        child.log_metrics({"test/auroc": 0.9}, step=0)
        child.close("FINISHED")
        runs[name] = _known(child)
    parent.close("FINISHED")
    return runs


def _known(tracker: MlflowTracker) -> str:
    assert tracker.run_id is not None
    return tracker.run_id


@pytest.fixture(scope="module")
def browser(told: Told) -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    expect.set_options(timeout=PATIENCE_MS)
    page = browser.new_page(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def test_the_run_shows_its_metrics_by_step(told: Told, page: Page) -> None:
    page.goto(f"{told.experiment}/runs/{told.runs['tiny']}")
    expect(page.get_by_text("train/loss_cls", exact=True)).to_be_visible()
    expect(page.get_by_text("Finished", exact=True)).to_be_visible()
    expect(page.get_by_text("objective.w_cls", exact=True)).to_be_visible()
    page.goto(f"{told.experiment}/runs/{told.runs['tiny']}/model-metrics")
    drawn = page.wait_for_function(
        """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data || [])
            .filter(line => line.metricKey === 'train/loss')
            .map(line => [Array.from(line.x), Array.from(line.y)])[0]"""
    ).json_value()
    steps = list(range(1, NUM_STEPS + 1))
    assert drawn == [steps, [1 / step for step in steps]]


def test_child_runs_stand_below_their_parent(told: Told, page: Page) -> None:
    page.goto(f"{told.experiment}/runs")
    line = page.get_by_role("gridcell").filter(has=link_to(page, told, "comparison"))
    expect(line).to_be_visible()
    expect(link_to(page, told, "tiny")).to_be_visible()
    expect(link_to(page, told, "joint")).to_have_count(0)
    line.get_by_role("button").click()
    for name in CHILDREN:
        expect(link_to(page, told, name)).to_be_visible()


def link_to(page: Page, told: Told, name: str) -> Locator:
    """Links to the page of a run, under its name."""
    return page.get_by_role("link", name=name, exact=True).and_(page.locator(f"[href$='/runs/{told.runs[name]}']"))


def test_report_and_model_are_among_the_files(told: Told, page: Page) -> None:
    page.goto(f"{told.experiment}/runs/{told.runs['tiny']}/artifacts")
    for name in ("bundle", "adapter"):
        page.get_by_text(name, exact=True).click()
    for name in ("manifest.json", "head.safetensors", "adapter_model.safetensors"):
        expect(page.get_by_text(name, exact=True)).to_be_visible()
    for name in ("evaluation", "test", "report.html"):
        page.get_by_text(name, exact=True).click()
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="demo <1>")).to_be_visible()
    widths = report.locator("figure img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 6
    assert min(widths) > 400
