"""The report in headless chromium: as a person sees it, on a desk, on a phone and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import DESKTOP, PHONE, Seen, chromium, overflow
from tests.support.evaluated import everything_measured, metrics_of, render, simulate_split

EVIL = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\"> chills"
RUN = f"demo <1> {'of_a_long_name_' * 5}"
LABELS = {
    2: ["no", "yes"],
    4: ["supported", "a $\\bad$ sign", f"a name of a label {'that_is_long_' * 5}", "<b>bold</b>"],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A report by number of labels, whose rows try to be markup, with all that can be measured."""
    found = {}
    for num_labels, labels in LABELS.items():
        folder = tmp_path_factory.mktemp("report")
        threshold = 0.4 if num_labels == 2 else None
        predictions, rows = simulate_split(300, labels, threshold=threshold)
        split = (
            [replace(p, explanation=f"It has {EVIL}" if p.explanation else None) for p in predictions],
            [
                replace(row, text=f"{row.text} {EVIL} {'w' * 120}", subgroups=(("<site>", f"{EVIL} {n % 3}"),))
                for n, row in enumerate(rows)
            ],
        )
        measured = everything_measured(metrics_of(split, labels, threshold)["explanation"])
        render(folder, split, labels, threshold, with_pictures=True, run=RUN, **measured)
        found[num_labels] = folder / "report.html"
    return found


def opened(browser: Browser, report: Path, size: tuple[int, int]) -> tuple[Page, Seen]:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    seen = Seen(page)
    page.goto(report.as_uri())
    return page, seen


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("num_labels", LABELS)
def test_it_renders_whole_and_without_a_word_on_the_console(
    browser: Browser, reports: dict[int, Path], num_labels: int, size: tuple[int, int]
) -> None:
    page, seen = opened(browser, reports[num_labels], size)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert page.locator("h2").count() == 10
    widths = page.locator("figure img").evaluate_all("images => images.map(i => [i.naturalWidth, i.clientWidth])")
    assert len(widths) == 6
    assert all(natural > 400 and 250 < shown < natural for natural, shown in widths)
    assert overflow(page) <= 0
    assert seen.errors == []
    assert seen.requests == []
    page.close()


def test_markup_of_rows_is_text_and_nothing_of_it_runs(browser: Browser, reports: dict[int, Path]) -> None:
    page, seen = opened(browser, reports[2], DESKTOP)
    assert page.title() == f"{RUN}: evaluation report"
    assert page.locator("script").count() == 0
    assert page.locator("article img").count() == 0
    texts = page.locator("article .text").all_inner_texts()
    assert sum("<script>document.title = 'taken'</script>" in text for text in texts) >= 12
    assert page.locator("article mark", has_text="chills").count() >= 1
    assert seen.errors == []
    page.close()


def test_each_example_shows_bars_as_long_as_its_probabilities(browser: Browser, reports: dict[int, Path]) -> None:
    page, _ = opened(browser, reports[2], DESKTOP)
    assert page.locator("article").count() == 12
    bars = page.locator("article .bars .bar").evaluate_all(
        "bars => bars.map(b => [b.firstChild.clientWidth / b.clientWidth, Number(b.nextElementSibling.innerText)])"
    )
    assert len(bars) == 24
    assert all(length == pytest.approx(said, abs=0.01) for length, said in bars)
    page.close()


def test_it_prints_with_what_is_folded_away_on_screen(browser: Browser, reports: dict[int, Path]) -> None:
    page, seen = opened(browser, reports[2], DESKTOP)
    hidden = page.get_by_text("Hedging in the text (English)")
    assert hidden.bounding_box() is None or not hidden.is_visible()
    page.emulate_media(media="print")
    assert hidden.is_visible()
    printed = page.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF-")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 40
    assert seen.errors == []
    page.close()
