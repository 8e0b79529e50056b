"""The page about an explained set: what it says, when it warns, and that it is safe and whole."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.explain.report import (
    ClassAgreement,
    ClassCauses,
    ClassCounts,
    Example,
    ExplainFacts,
    SplitCounts,
    Usage,
    find_warnings,
    say_headline,
    write_explain_report,
)

VOID = {"meta", "br", "img", "link", "hr", "input"}


def count(label: str | None, rows: int, first: int, rescued: int = 0, out: int | None = None) -> ClassCounts:
    return ClassCounts(
        label=label,
        num_rows_in=rows,
        num_rows_out=rows if out is None else out,
        num_kept_first=first,
        num_rescued=rescued,
    )


def split(*classes: ClassCounts, name: str = "train") -> SplitCounts:
    return SplitCounts(name=name, classes=classes)


def example(number: int, **changes: Any) -> Example:
    fields: dict[str, Any] = {
        "id": f"row-{number}",
        "label": "yes",
        "text": f"Text {number} of a trial.",
        "reason": f"Reason {number}: the trial halved the rate.",
        "status": "kept",
        "cause": None,
        "num_attempts": 1,
    }
    return Example(**(fields | changes))


FACTS = ExplainFacts(
    run="demo <1>",
    question="Does the abstract support the claim?",
    labels=("no", "yes"),
    teacher="endpoint",
    model="a-model",
    teacher_sentence="A language model behind an OpenAI-compatible endpoint writes the reasons.",
    splits=(
        split(count("no", 600, 500, 64), count("yes", 1200, 1180), name="train"),
        split(count("no", 100, 90, 5), count("yes", 100, 85, 0), name="validation"),
    ),
    causes=(
        ClassCauses(label="no", rows={"leak": 30, "short": 11}, attempts={"leak": 1234, "short": 40}),
        ClassCauses(label="yes", rows={"leak": 35}, attempts={"leak": 99, "loop": 7}),
    ),
    cause_sentences={"leak": "It says that it was told the answer.", "short": "It has fewer words than asked for."},
    agreement=(
        ClassAgreement(label="no", num_agreed=500, num_disagreed=190, num_unanswered=10),
        ClassAgreement(label="yes", num_agreed=1250, num_disagreed=50, num_unanswered=0),
    ),
    usage=Usage(num_requests=6543, prompt_tokens=1234567, completion_tokens=234567, cost=12.5),
    settings={"explain.teacher": "endpoint", "explain.tries": "3"},
    prompts={"reason": "\nWhy is the label {label} right?\n\n{text}"},
    examples=(
        example(1),
        example(2, status="rescued", cause="leak", num_attempts=5),
        example(3, status="given up", reason=None, cause="short", num_attempts=6, label=None),
    ),
)


class Page(HTMLParser):
    """Checks that every tag is closed in turn, and collects text, tags and addresses."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


def render(folder: Path, facts: ExplainFacts) -> str:
    path = folder / "explain_report.html"
    write_explain_report(path, facts)
    assert [child.name for child in folder.iterdir()] == [path.name]
    return path.read_text(encoding="utf-8")


def test_the_same_facts_give_the_same_bytes(folder: Path) -> None:
    assert render(folder, FACTS) == render(folder, FACTS)
    # Counters fill in the order in which rows come back, and that differs from run to run.
    turned = tuple(
        replace(c, rows=dict(reversed(c.rows.items())), attempts=dict(reversed(c.attempts.items())))
        for c in FACTS.causes
    )
    assert render(folder, replace(FACTS, causes=turned)) == render(folder, FACTS)


def test_the_page_needs_nothing_but_itself(folder: Path) -> None:
    source = render(folder, FACTS)
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "base"} & set(page.names)
    assert page.addresses == []
    assert not re.search(r"https?://|@import|url\(", source)
    assert "default-src 'none'" in source
    assert 'name="viewport"' in source


def test_the_page_says_the_numbers(folder: Path) -> None:
    text = Page(render(folder, FACTS)).text
    assert "1,924 of 2,000 rows (96.2 %) have a reason; every one of the 2,000 keeps its label." in text
    assert "no 600 600 out 500 83.3 % 64 564 94.0 %" in text
    assert "yes 1,200 1,200 out 1,180 98.3 % 0 1,180 98.3 %" in text
    assert "all 1,800 1,800 out 1,680 93.3 % 64 1,744 96.9 %" in text
    assert "no 100 100 out 90 90.0 % 5 95 95.0 %" in text
    assert "It says that it was told the answer. 65 1,333 no 30 1,234 yes 35 99" in text
    assert "It has fewer words than asked for. 11 40 no 11 40" in text
    assert "loop 0 7 yes 0 7" in text
    assert text.index("It says that it was told") < text.index("It has fewer words") < text.index("loop 0 7")
    assert "gives the label of the row in 1,750 of 2,000 rows (87.5 %)" in text
    assert "most frequent label would agree in 65.0 %" in text
    assert "no 500 71.4 % 190 10" in text
    for words in (
        "6,543",
        "1,234,567",
        "234,567",
        "12.50",
        "a-model",
        "explain.tries 3",
        "demo <1>",
        "OpenAI-compatible",
    ):
        assert words in text


def test_prompts_stand_as_they_were_sent(folder: Path) -> None:
    # A browser drops the first line break in <pre>; one more stands before it.
    assert "<pre>\n\nWhy is the label {label} right?\n\n{text}</pre>" in render(folder, FACTS)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ((split(count("no", 0, 0)),), "There are no labelled rows."),
        ((split(count("no", 3, 1)),), "1 of 3 rows (33.3 %) has a reason; every one of the 3 keeps its label."),
        (
            (split(count("no", 10, 8, 1), count(None, 5, 2)),),
            "9 of 10 labelled rows (90.0 %) have a reason; every one of the 10 keeps its label. "
            "5 more have no label, and 2 of these a reason.",
        ),
        ((split(count("no", 10, 9, out=9)),), "9 of 10 rows (90.0 %) have a reason; 9 rows were written."),
        ((split(count("no", 9999, 9998)),), "9,998 of 9,999 rows (> 99.9 %) have a reason; "),
        ((split(count("no", 9999, 1)),), "1 of 9,999 rows (< 0.1 %) has a reason; "),
    ],
)
def test_headlines(splits: tuple[SplitCounts, ...], words: str) -> None:
    headline = say_headline(replace(FACTS, splits=splits))
    assert headline == words if words.endswith(".") else headline.startswith(words)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ((split(count("no", 100, 95), count("yes", 100, 100)),), []),
        ((split(count("no", 100, 85, 10), count("yes", 100, 100)),), []),
        ((split(count("no", 1000, 949), count("yes", 100, 100)),), ["equal shares"]),
        ((split(count("no", 100, 100), count("yes", 100, 0, 94)),), ["equal shares"]),
        ((split(count("no", 100, 0), count(None, 100, 100)),), ["Fewer than half"]),
        ((split(count("no", 100, 100), count(None, 100, 0)),), []),
        ((split(count("no", 0, 0), count("yes", 100, 100)),), []),
        ((split(count("no", 0, 0), count("yes", 0, 0)),), []),
        ((split(count("no", 100, 50), count("yes", 100, 50)),), []),
        ((split(count("no", 100, 49), count("yes", 100, 50)),), ["Fewer than half"]),
        ((split(count("no", 10, 10)), split(count("no", 10, 1), name="validation")), []),
        ((split(count("no", 10, 10, out=9)),), ["lost or doubled"]),
        ((split(count(None, 10, 10, out=11)),), ["lost or doubled"]),
        ((split(count("no", 10, 1), count("yes", 10, 5, out=0)),), ["lost or doubled", "Fewer than", "equal shares"]),
    ],
)
def test_warnings_stand_exactly_when_due(splits: tuple[SplitCounts, ...], expected: list[str], folder: Path) -> None:
    facts = replace(FACTS, splits=splits)
    warnings = find_warnings(facts)
    assert len(warnings) == len(expected)
    assert all(words in warning for words, warning in zip(expected, warnings, strict=True))
    text = Page(render(folder, facts)).text
    assert all(warning in text for warning in warnings)
    for words in ("equal shares", "Fewer than half", "lost or doubled"):
        assert (words in text) == any(words in warning for warning in warnings)


def test_the_warning_names_the_classes_and_the_split() -> None:
    classes = count("no", 1000, 700, 100), count("yes", 2000, 1900), count("maybe", 100, 90, 5)
    (warning,) = find_warnings(replace(FACTS, splits=(split(*classes, name="validation"),)))
    assert "In validation" in warning
    assert "\u201cyes\u201d (95.0 %): \u201cno\u201d 80.0 % (800 of 1,000)." in warning
    assert "maybe" not in warning


def test_a_class_without_rows_has_no_share(folder: Path) -> None:
    facts = replace(
        FACTS,
        splits=(split(count("no", 0, 0), count("yes", 0, 0)),),
        agreement=(ClassAgreement(label="no", num_agreed=0, num_disagreed=0, num_unanswered=0),),
        causes=(),
        examples=(),
        prompts={},
        usage=Usage(num_requests=0, prompt_tokens=0, completion_tokens=0, cost=None),
    )
    text = Page(render(folder, facts)).text
    assert "no 0 0 out 0 n/a 0 0 n/a" in text
    assert "It was not asked." in text
    assert "None was refused." in text
    assert "Cost none: no language model was asked" in text
    assert "Prompts" not in text


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (None, "unknown: no prices are set"),
        (0.0, "0.00, in the currency of the prices"),
        (0.0321, "0.0321, in the currency"),
        (1234.5, "1,234.50, in the currency"),
    ],
)
def test_small_costs_are_not_rounded_away(cost: float | None, words: str, folder: Path) -> None:
    text = Page(render(folder, replace(FACTS, usage=replace(FACTS.usage, cost=cost)))).text
    assert f"Cost {words}" in text


def test_markup_from_anywhere_shows_as_text(folder: Path) -> None:
    evil = "</pre></details><script>alert(1)</script><img src=http://x.example/y onerror=alert(2)>\"'"
    facts = ExplainFacts(
        run=evil,
        question=evil,
        labels=(evil, "yes"),
        teacher="endpoint",
        model=evil,
        teacher_sentence=evil,
        splits=(split(count(evil, 10, 1), count("yes", 10, 9), name=evil),),
        causes=(ClassCauses(label=evil, rows={evil: 1}, attempts={}),),
        cause_sentences={"leak": evil},
        agreement=(ClassAgreement(label=evil, num_agreed=1, num_disagreed=0, num_unanswered=0),),
        usage=FACTS.usage,
        settings={evil: evil},
        prompts={evil: evil},
        examples=(example(1, id=evil, label=evil, text=evil, reason=evil, cause="leak"),),
    )
    source = render(folder, facts)
    page = Page(source)
    assert set(page.names) == set(Page(render(folder, FACTS)).names) | {"ul", "li"}
    assert page.addresses == []
    assert page.text.count("<script>alert(1)</script>") == source.count("&lt;script&gt;") >= 20
    assert "<script" not in source


def test_long_texts_are_cut_and_say_so_and_reasons_are_whole(folder: Path) -> None:
    page = render(folder, replace(FACTS, examples=(example(1, text="x" * 2600, reason="y" * 2600),)))
    assert "x" * 600 + " \u2026 [2,000 more characters]" in page
    assert "x" * 601 not in page
    assert "y" * 2600 in page
    assert "more characters" not in render(folder, replace(FACTS, examples=(example(1, text="x" * 600),)))


def test_examples_tell_how_the_row_ended(folder: Path) -> None:
    text = Page(render(folder, FACTS)).text
    assert text.index("row-1 label yes 1 attempt Text 1") < text.index("row-2 label yes 5 attempts")
    assert "Refused before: It says that it was told the answer." in text
    assert "row-3 no label 6 attempts Text 3 of a trial. No reason. Last refused: It has fewer words" in text


def test_of_many_examples_every_status_is_shown(folder: Path) -> None:
    many = [example(n) for n in range(100)] + [example(n, status="given up", reason=None) for n in range(200, 202)]
    text = Page(render(folder, replace(FACTS, examples=tuple(many)))).text
    assert re.findall(r"row-(\d+)", text) == [*map(str, range(10)), "200", "201"]
    assert "Kept (" in text
    assert "Rescued (" not in text


def test_a_torn_character_does_not_cost_the_page(folder: Path) -> None:
    assert "half ? pair" in render(folder, replace(FACTS, examples=(example(1, text="half \ud83d pair"),)))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)).filter(lambda c: c[0] >= c[1] + c[2]),
        max_size=4,
    )
)
def test_any_counts_make_a_page_and_shares_never_look_like_all(
    tmp_path_factory: pytest.TempPathFactory, classes: list[tuple[int, int, int]]
) -> None:
    facts = replace(FACTS, splits=(split(*(count(f"l{n}", *c) for n, c in enumerate(classes))),))
    Page(render(tmp_path_factory.mktemp("page"), facts))
    rows, kept = sum(c[0] for c in classes), sum(c[1] + c[2] for c in classes)
    assert ("(100.0 %)" in say_headline(facts)) == (0 < rows == kept)
