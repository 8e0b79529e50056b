"""What a model says, read as a distribution or refused with a cause."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.errors import ConfigError
from clsgen_dist.verbalize.parsing import FAULTS, FORMS, MAX_LETTERS, Said, distribution_schema, parse_distribution

NO_YES = ["no", "yes"]
TOLERANCE = 0.02
#: Names that tempt a parser: parts of each other, digits, marks, signs, other scripts, words of the grammar.
AWKWARD = [
    *(
        "positive",
        "very positive",
        "no",
        "no finding",
        "not_urgent",
        "Urgent",
        "1",
        "2",
        "10",
        "C",
        "C++",
        "C#",
        "a.b*",
    ),
    *(
        "(x)",
        "[y]",
        "q?",
        "\\d+",
        "it's",
        'say "hi"',
        "ja/nein",
        "非",
        "是",
        "😀",
        "😢",
        "naïve",
        "A and B",
        "rock & roll",
    ),
    *("none", "unknown", "P", "p(z)", "percent", "is", "x^2", "$5", "-1", "<5", ">5", "total", "a-b-c", "Straße"),
]


def read(answer: str, labels: list[str] | None = None, sum_tolerance: float = TOLERANCE) -> Said:
    return parse_distribution(answer, labels or NO_YES, sum_tolerance=sum_tolerance)


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ('{"no": 30, "yes": 70}', "json"),
        ('{"yes": 0.7, "no": 0.3}', "json"),
        ('{"YES": "70%", " No ": "30 %"}', "json"),
        ('{"yes": "7/10", "no": "3 out of 10"}', "json"),
        ('{"**yes**": "about 70 percent", "`no`": "~30%"}', "json"),
        ('{"P(yes)": 0.7, "no_probability": 0.3}', "json"),
        ('{"answer": "yes", "confidence": 70, "distribution": {"yes": 70, "no": 30}}', "json"),
        ('{"label": "yes", "yes": 70, "no": 30, "total": 100}', "json"),
        ('{"first": {"yes": 50, "no": 50}, "final": {"yes": 70, "no": 30}}', "json"),
        ('[{"label": "yes", "probability": 0.7}, {"label": "no", "probability": 0.3}]', "json"),
        ('{"probabilities": [{"class": "no", "score": 30}, {"class": "yes", "score": 70}]}', "json"),
        ('[{"yes": 0.7}, {"no": 0.3}]', "json"),
        ('[["yes", 0.7], ["no", 0.3]]', "json"),
        ('{"labels": ["yes", "no"], "scores": [0.7, 0.3]}', "json"),
        ('{"yes": {"probability": 0.7, "why": "fever"}, "no": {"probability": 0.3}}', "json"),
        ("{'yes': 0.7, 'no': 0.3}", "dict"),
        ("{'yes': .7, 'no': .3,}", "dict"),
        ("[('yes', 70), ('no', 30)]", "dict"),
        ("{yes: 70%, no: 30%}", "dict"),
        ('{"yes": 0,7, "no": 0,3}', "dict"),
        ('{"yes": 70, // likely\n "no": 30}', "dict"),
        ("{\u201cyes\u201d: 70, \u201cno\u201d: 30}", "dict"),
        ("\\boxed{yes: 70\\%, no: 30\\%}", "dict"),
        ('```json\n{\n  "yes": 70,\n  "no": 30\n}\n```\nI hope this helps!', "json"),
        ("yes: 70%\nno: 30%", "lines"),
        ("```\nyes: 70\nno: 30\n```", "lines"),
        ("- **yes** - 0.7\n- **no** - 0.3", "lines"),
        ("* **Yes:** 70%\n* **No:** 30%", "lines"),
        ("1. yes: 70%\n2. no: 30%", "lines"),
        ("a) yes = 3.5/5\nb) no = 1.5/5", "lines"),
        ("> yes -> 70 %\n> no -> 30 %", "lines"),
        ("yes \u2014 70%\n\nno \u2014 30%", "lines"),
        ("P(yes) = .7\nP(no) = .3", "lines"),
        ("P(yes | text) = 0.7, P(no | text) = 0.3", "lines"),
        ("P(y = yes) \u2248 70%; P(y = no) \u2248 30%", "lines"),
        ("The probability of yes is 0.7 and the probability of no is 0.3.", "lines"),
        ("The distribution is: yes (70%), no (30%).", "lines"),
        ("yes: 70% no: 30%", "lines"),
        ("yes 70% no 30%", "lines"),
        ("yes\t70\nno\t30", "lines"),
        ("yes ...... 70%\nno ....... 30%", "lines"),
        ("yes: 0,7\nno: 0,3", "lines"),
        ("yes: 70,00 %; no: 30,00 %", "lines"),
        ("yes: 70, since he has a fever.\nThis is clear.\n\nno: 30, as he walks.", "lines"),
        ("yes: 70% because 3 of 4 signs are there\nno: 30% because 1 is not", "lines"),
        ("yes\uff1a70\uff05\nno\uff1a30\uff05", "lines"),
        ('"{\\"yes\\": 70, \\"no\\": 30}"', "lines"),
        ('{\n "yes": 70,\n "no": 30', "lines"),
        ("| label | probability |\n|---|---:|\n| yes | 70% |\n| no | 30% |", "table"),
        ("| # | label | why | % |\n|-|-|-|-|\n| 1 | **Yes** | fever | 70 |\n| 2 | **No** | walks | 30 |", "table"),
        ("| yes | 70% | no | 30% |", "table"),
    ],
)
def test_a_distribution_is_read_in_many_forms(answer: str, form: str) -> None:
    said = read(answer)
    assert said.fault is None
    assert said.probabilities == pytest.approx((0.3, 0.7), abs=1e-12)
    assert said.raw_sum == pytest.approx(1.0, abs=1e-12)
    assert said.form == form


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", "no_answer"),
        (" \n\t", "no_answer"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I\u2019m unable to judge this.", "refusal"),
        ("As an AI language model, I do not give diagnoses.", "refusal"),
        ("**I cannot** give probabilities.", "refusal"),
        ("yes", "no_distribution"),
        ("I am 90% confident that it is yes.", "no_distribution"),
        ("No: the patient is 70 years old.", "no_distribution"),
        ("70% yes, 30% no", "no_distribution"),
        ("{}", "no_distribution"),
        ("[0.7, 0.3]", "no_distribution"),
        ('{"yes": <percent>, "no": <percent>}', "no_distribution"),
        ("yes: 70%", "missing_label"),
        ('{"yes": 100}', "missing_label"),
        ('{"label": "yes", "confidence": 0.9}', "missing_label"),
        ("yes: 3 reasons speak for it\nno: 0.3", "missing_label"),
        ("yes: 70x\nno: 30", "missing_label"),
        ('{"yes": 70, "yes": 70, "no": 30}', "duplicate_label"),
        ('{"yes": 70, "YES": 60, "no": 30}', "duplicate_label"),
        ("yes: 70%\nyes: 70%\nno: 30%", "duplicate_label"),
        ("yes: 70%\nno: 30%\nyes: 60%", "duplicate_label"),
        ("| yes | 70% |\n| no | 30% |\n| no | 30% |", "duplicate_label"),
        ('[{"label": "yes", "p": 0.7}, {"label": "yes", "p": 0.7}, {"label": "no", "p": 0.3}]', "duplicate_label"),
        ('{"yes": 60, "no": 30, "maybe": 10}', "unknown_label"),
        ('{"yes": 70, "no": 30, "maybe": 0}', "unknown_label"),
        ('{"yes": 60, "maybe": 40}', "unknown_label"),
        ('[["yes", 0.6], ["no", 0.3], ["maybe", 0.1]]', "unknown_label"),
        ("yes: 60%\nmaybe: 10%\nno: 30%", "unknown_label"),
        ("yes: 60%, no: 30%, maybe: 10%", "unknown_label"),
        ("maybe: 10%\nyes: 60%\nno: 40%", "unknown_label"),
        ("maybe: 10%, yes: 60%, no: 40%", "unknown_label"),
        ("| yes | 60% |\n| maybe | 10% |\n| no | 30% |", "unknown_label"),
        ('{"yes": NaN, "no": 0.3}', "not_a_number"),
        ('{"yes": Infinity, "no": 0.3}', "not_a_number"),
        ('{"yes": 1e999, "no": 0.3}', "not_a_number"),
        ('{"yes": null, "no": 1}', "not_a_number"),
        ('{"yes": true, "no": false}', "not_a_number"),
        ('{"yes": "high", "no": "low"}', "not_a_number"),
        ('{"yes": "3/0", "no": 1}', "not_a_number"),
        ('{"yes": "12,345", "no": 1}', "not_a_number"),
        ("yes: nan\nno: 0.3", "not_a_number"),
        ("yes: n/a\nno: 1", "not_a_number"),
        ("yes: 60-70%\nno: 30%", "not_a_number"),
        ("yes: 60 to 70%\nno: 30%", "not_a_number"),
        ("yes: 0.7 \u00b1 0.1\nno: 0.3", "not_a_number"),
        ("yes: <1%\nno: 99%", "not_a_number"),
        ("yes: 1/2/2020\nno: 0.5", "not_a_number"),
        ("| yes | 70% | 80% |\n| no | 30% | 20% |", "not_a_number"),
        ("| yes | NaN |\n| no | 30% |", "not_a_number"),
        ('{"yes": -0.1, "no": 1.1}', "negative"),
        ("yes: -10%\nno: 110%", "negative"),
        ("yes: \u221210%\nno: 110%", "negative"),
        ('{"yes": 7, "no": 3}', "above_one"),
        ('{"yes": 101, "no": 0}', "above_one"),
        ('{"yes": "5/4", "no": 0}', "above_one"),
        ('{"yes": "70%", "no": 40}', "mixed_units"),
        ('{"yes": "3/4", "no": 0.2}', "mixed_units"),
        ('{"yes": 1, "no": 1}', "bad_sum"),
        ('{"yes": 0, "no": 0}', "bad_sum"),
        ('{"yes": 60, "no": 30}', "bad_sum"),
        ("yes: 0.7%\nno: 0.3%", "bad_sum"),
    ],
)
def test_what_is_no_distribution_is_refused_with_its_cause(answer: str, fault: str) -> None:
    said = read(answer)
    assert said.fault == fault
    assert said.probabilities is None
    assert fault in FAULTS


@pytest.mark.parametrize(
    ("answer", "probabilities"),
    [
        ('{"yes": 1, "no": 0}', (0.0, 1.0)),
        ('{"yes": 1, "no": 99}', (0.99, 0.01)),
        ('{"yes": 100, "no": 0}', (0.0, 1.0)),
        ('{"yes": 0.5, "no": 99.5}', (0.995, 0.005)),
        ('{"yes": "1%", "no": "99%"}', (0.99, 0.01)),
        ('{"yes": 1.0, "no": -0.0}', (0.0, 1.0)),
        ('{"yes": "70%", "no": 30}', (0.3, 0.7)),
        ('{"yes": "70%", "no": 0.3}', (0.3, 0.7)),
        ('{"yes": "100%", "no": 0}', (0.0, 1.0)),
        ('{"yes": "3/4", "no": 0.25}', (0.25, 0.75)),
        ('{"yes": "3/4", "no": "25%"}', (0.25, 0.75)),
    ],
)
def test_the_row_decides_what_is_a_percentage(answer: str, probabilities: tuple[float, ...]) -> None:
    assert read(answer).probabilities == pytest.approx(probabilities, abs=1e-12)


def test_a_mix_that_sums_to_one_in_two_ways_is_refused() -> None:
    answer = '{"yes": "98%", "no": 0.01}'
    assert read(answer, sum_tolerance=0.001).fault == "mixed_units"
    assert read(answer, sum_tolerance=0.015).probabilities == pytest.approx((1 / 99, 98 / 99))
    assert read(answer, sum_tolerance=0.05).fault == "mixed_units"


@pytest.mark.parametrize(
    ("answer", "raw_sum"),
    [('{"yes": 0.7, "no": 0.29}', 0.99), ('{"yes": 72, "no": 30}', 1.02), ("yes: 70%\nno: 28%", 0.98)],
)
def test_a_sum_within_the_tolerance_is_mended_and_recorded(answer: str, raw_sum: float) -> None:
    said = read(answer)
    assert said.raw_sum == pytest.approx(raw_sum, abs=1e-12)
    assert said.probabilities is not None
    assert math.fsum(said.probabilities) == pytest.approx(1, abs=1e-12)
    strict = read(answer, sum_tolerance=0.005)
    assert (strict.probabilities, strict.fault) == (None, "bad_sum")
    assert strict.raw_sum == pytest.approx(raw_sum, abs=1e-12)


@pytest.mark.parametrize(
    "answer",
    [
        "I am 90% confident in yes.\nyes: 70%, no: 30%",
        "Choice: yes (90%)\nConfidence: 90%\nyes: 70%\nno: 30%",
        "1. yes\n2. 90%\n3. yes 90%, no 10%\n4. {'yes': 70, 'no': 30}",
        '{"yes": 90, "no": 10}\nOn reflection:\n{"yes": 70, "no": 30}',
        "yes: 90%, no: 10%\nyes: 70%, no: 30%",
        "At first: yes: 90%, no: 10%.\n\nIn the end: yes: 70%, no: 30%.\n\nSo yes it is (yes: 70%).",
        'Draft: {"yes": 90, "no": 10}\n| yes | 70 |\n| no | 30 |\nTotal: 100\nUrgency: 3',
        'yes: 70%\nno: 30%\n{"yes": 7',
        "[1] He is 45.\nAge: 45\nyes: 70\nno: 30",
        "yes: 70% vs no: 30%\nHeart rate: 88",
        "dict(yes=0.7, no=0.3)",
        'The keys are {"yes", "no"}; {"yes": 70, "no": 30} {"x": [1, 2]}',
        "{ (a brace that is never closed\nyes: 70\nno: 30",
    ],
)
def test_the_last_whole_distribution_counts_and_other_numbers_do_not(answer: str) -> None:
    assert read(answer).probabilities == pytest.approx((0.3, 0.7), abs=1e-12)


def test_a_faulty_last_distribution_is_not_replaced_by_a_draft() -> None:
    assert read('{"yes": 90, "no": 10}\n{"yes": 70, "no": 20}').fault == "bad_sum"
    assert read("yes: 60%, no: 40%\n\nyes: 60-70%, no: 35%").fault == "not_a_number"


@pytest.mark.parametrize(
    ("answer", "labels", "probabilities"),
    [
        ("very positive: 70%\npositive: 30%", ["positive", "very positive"], (0.3, 0.7)),
        ("no: 70%\nno finding: 30%", ["no", "no finding"], (0.7, 0.3)),
        ("The odds are no finding: 30%, no: 70%", ["no", "no finding"], (0.7, 0.3)),
        ("not urgent: 70%\nurgent: 30%", ["not_urgent", "urgent"], (0.7, 0.3)),
        ("not\\_urgent: 70%\nurgent: 30%", ["not_urgent", "urgent"], (0.7, 0.3)),
        ('{"Not Urgent": 70, "urgent": 30}', ["not_urgent", "urgent"], (0.7, 0.3)),
        ("Non\u2011Urgent: 70%\nUrgent: 30%", ["urgent", "non-urgent"], (0.3, 0.7)),
        ("C: 10%\nC#: 20%\nC++: 70%", ["C", "C#", "C++"], (0.1, 0.2, 0.7)),
        ("*: 10%\n**: 20%\n***: 70%", ["*", "**", "***"], (0.1, 0.2, 0.7)),
        ("+: 70%\n-: 30%", ["+", "-"], (0.7, 0.3)),
        ("- +: 70%\n- -: 30%", ["+", "-"], (0.7, 0.3)),
        ("-1: 70%\n1: 30%", ["-1", "1"], (0.7, 0.3)),
        ("1: 70,2: 30", ["1", "2"], (0.7, 0.3)),
        ("{1: 0.7, 2: 0.3}", ["1", "2"], (0.7, 0.3)),
        ("{1: 0,2: 1}", ["1", "2"], (0.0, 1.0)),
        ("| 1 | 1 |\n| 2 | 99 |", ["1", "2"], (0.01, 0.99)),
        ("1. 1: 70%\n2. 2: 30%", ["1", "2"], (0.7, 0.3)),
        ('{"\\ud83d\\ude00": 70, "\U0001f622": 30}', ["\U0001f600", "\U0001f622"], (0.7, 0.3)),
        ("cafe\u0301: 70%\ntea: 30%", ["caf\u00e9", "tea"], (0.7, 0.3)),
        ("\u662f\uff1a70%\n\u975e\uff1a30%", ["\u662f", "\u975e"], (0.7, 0.3)),
        ("it's: 70%\nit isn't: 30%", ["it's", "it isn't"], (0.7, 0.3)),
        ("{'it\\'s': 70, \"it isn't\": 30}", ["it's", "it isn't"], (0.7, 0.3)),
        ("a_b: 70%\na b: 30%", ["a_b", "a b"], (0.7, 0.3)),
    ],
)
def test_awkward_names_are_told_apart(answer: str, labels: list[str], probabilities: tuple[float, ...]) -> None:
    assert read(answer, labels).probabilities == pytest.approx(probabilities, abs=1e-12)


def test_a_part_of_a_longer_name_is_no_label() -> None:
    assert read("very positive: 70%\nnegative: 30%", ["positive", "negative"]).fault is not None
    assert read("normal: 70%\nno: 30%", ["no", "finding"]).fault is not None
    assert read("10: 70%\n2: 30%", ["1", "2"]).fault is not None
    assert read('{"A-B": 70, "c": 30}', ["a_b", "a b", "c"]).fault == "unknown_label"


def _jsonish(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {number}" for name, number in pairs) + "}"


_STRUCTURES = {
    "json": _jsonish,
    "nested": lambda pairs: f'{{"choice": "?", "probabilities": {_jsonish(pairs)}}}',
    "words": lambda pairs: json.dumps(dict(pairs), ensure_ascii=False, indent=2),
    "list": lambda pairs: json.dumps([{"label": name, "probability": number} for name, number in pairs]),
    "python": lambda pairs: repr(dict(pairs)),
    "fenced": lambda pairs: f"I thought of 12 things.\n```python\n{dict(pairs)!r}\n```\nSo that is it, at 99 %.",
}
_LINES = {
    "colon": lambda pairs: "\n".join(f"{name}: {number}" for name, number in pairs),
    "bullet": lambda pairs: "\n".join(f"- **{name}** - {number}" for name, number in pairs),
    "stars": lambda pairs: "\n\n".join(f"* **{name}:** {number}" for name, number in pairs),
    "equals": lambda pairs: "Well.\n" + "\n".join(f"{name} = {number}" for name, number in pairs) + "\n\nThat is all.",
    "chance": lambda pairs: "\n".join(f"P({name}) = {number}" for name, number in pairs),
    "quoted": lambda pairs: "\n".join(f'"{name}": {number},' for name, number in pairs),
    "table": lambda pairs: "| label | p |\n|---|---|\n" + "\n".join(f"| {name} | {number} |" for name, number in pairs),
}
#: How a whole number of hundredths is said; every number of a row alike.
_NUMBERS = {
    "percent": lambda n: f"{n}%",
    "spaced percent": lambda n: f"{n} %",
    "decimal": lambda n: f"{n / 100:.2f}",
    "plain": str,
    "quotient": lambda n: f"{n}/100",
}


@st.composite
def _hundredths(draw: st.DrawFn, num_labels: int) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=num_labels - 1, max_size=num_labels - 1)))
    return [after - before for before, after in zip([0, *cuts], [*cuts, 100], strict=True)]


_ANY_LABELS = st.lists(
    st.one_of(st.sampled_from(AWKWARD), st.text(min_size=1, max_size=8).filter(str.strip)),
    min_size=2,
    max_size=6,
    unique_by=lambda name: name.strip().casefold(),
)


def _agrees(answer: str, labels: list[str], hundredths: list[int]) -> None:
    said = read(answer, labels)
    assert said.fault is None, said
    assert said.probabilities == pytest.approx([n / 100 for n in hundredths], abs=1e-9)


@settings(deadline=None)
@given(data=st.data(), labels=_ANY_LABELS, form=st.sampled_from(sorted(_STRUCTURES)))
def test_any_distribution_in_an_object_is_read_back(data: st.DataObject, labels: list[str], form: str) -> None:
    hundredths = data.draw(_hundredths(len(labels)))
    number = _NUMBERS[data.draw(st.sampled_from(["decimal", "plain"] if form in ("json", "nested") else [*_NUMBERS]))]
    pairs = data.draw(st.permutations([(name, number(n)) for name, n in zip(labels, hundredths, strict=True)]))
    _agrees(_STRUCTURES[form](pairs), labels, hundredths)


@settings(deadline=None)
@given(
    data=st.data(),
    labels=st.lists(st.sampled_from(AWKWARD), min_size=2, max_size=6, unique=True),
    form=st.sampled_from(sorted(_LINES)),
    number=st.sampled_from(sorted(_NUMBERS)),
)
def test_any_distribution_in_lines_is_read_back(data: st.DataObject, labels: list[str], form: str, number: str) -> None:
    hundredths = data.draw(_hundredths(len(labels)))
    said = [(name, _NUMBERS[number](n)) for name, n in zip(labels, hundredths, strict=True)]
    _agrees(_LINES[form](data.draw(st.permutations(said))), labels, hundredths)


def _is_sound(said: Said, num_labels: int) -> bool:
    if said.fault is not None:
        return said.probabilities is None and said.fault in FAULTS and said.form in (None, *FORMS)
    assert said.probabilities is not None
    assert said.raw_sum is not None
    return (
        len(said.probabilities) == num_labels
        and all(0 <= p <= 1 for p in said.probabilities)
        and abs(math.fsum(said.probabilities) - 1) < 1e-12
        and abs(said.raw_sum - 1) <= TOLERANCE + 1e-9
        and said.form in FORMS
    )


_PIECES = [
    *("yes", "no", "maybe", ": ", " - ", "=", "70%", "30", "0.3", ".7", "3/4", "1e999", "-1", "NaN", "0,7", "\n", " "),
    *('"', "'", "{", "}", "[", "]", "(", ")", ",", ";", "|", "**", "`", "\\", "\\u", "//", "- ", "P(", "```", "label"),
    *("probability", "\ud83d", "\u0301", "\x00", "1", "out of", "to", "is ", "\t", "9" * 400, "<", "\u2028", "%"),
]


@settings(deadline=None)
@given(answer=st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PIECES), max_size=40).map("".join)))
def test_any_answer_is_a_distribution_or_a_fault(answer: str) -> None:
    assert _is_sound(read(answer), 2)
    assert _is_sound(read(answer, ["1", "no", "yes please"]), 3)


@pytest.mark.parametrize(
    "answer",
    [
        *("{" * 20_000, "[" * 9 + "]" * 9, "[" * 20_000 + "]" * 20_000, '{"yes": ' * 3000, '{"a": ["' * 4000),
        *("{'yes': " + "9" * 100_000 + ", 'no': 1}", '{"yes": 1e308, "no": 1e308}', "{//" * 20_000, "{'" * 20_000),
        *("yes: 1, " * 10_000, "yes" + " " * 90_000 + "70%", "yes: 70%\n" * (MAX_LETTERS // 8), "yes: 1/" * 10_000),
        *("\\ud83d" * 5000 + '{"\\ud83d": 1}', "a\u0301\u0327" * 30_000, "|" * 90_000, "| yes | 1 " * 9000),
        *("(*" * 40_000, "P(" * 40_000, "P(yes|" * 15_000, "\t" * 90_000, "is " * 30_000, "yes \n" * 18_000),
    ],
    ids=lambda answer: repr(answer[:12]),
)
def test_a_hostile_answer_is_a_fault_and_ends(answer: str) -> None:
    """Where time grew with the square of the length, one of these would take minutes and meet the time limit."""
    said = read(answer)
    assert said.fault is not None
    assert _is_sound(said, 2)


def test_the_end_of_a_very_long_answer_is_read() -> None:
    end = '\n{"yes": 70, "no": 30}'
    assert read("He has a fever.\n" * 20_000 + end).probabilities == pytest.approx((0.3, 0.7))
    assert read('{"yes": 70, "no": 30}' + "\nHe has a fever." * 20_000).fault == "no_distribution"


def test_a_refusal_with_a_distribution_is_a_distribution() -> None:
    assert read("I'm sorry, I can only guess.\nyes: 70%\nno: 30%").fault is None


@pytest.mark.parametrize("labels", [["yes"], ["yes", "Yes "], ["yes", " "], []])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"task\.labels"):
        parse_distribution("yes: 1", labels, sum_tolerance=TOLERANCE)


@pytest.mark.parametrize("sum_tolerance", [-0.01, 0.5, math.nan])
def test_a_tolerance_out_of_range_is_refused(sum_tolerance: float) -> None:
    with pytest.raises(ConfigError, match="sum_tolerance"):
        read("yes: 1", sum_tolerance=sum_tolerance)


def test_the_schema_wants_every_label_once_and_nothing_else() -> None:
    schema = distribution_schema(["no", 'say "hi"'])
    assert schema["type"] == "object"
    assert schema["required"] == ["no", 'say "hi"'] == list(schema["properties"])
    assert schema["additionalProperties"] is False
    assert all(value == {"type": "number", "minimum": 0, "maximum": 100} for value in schema["properties"].values())
    assert json.loads(json.dumps(schema)) == schema


def test_a_model_on_this_machine_is_held_to_whole_percents_and_their_sum() -> None:
    schema = distribution_schema(["no", "yes"], in_whole_percents=True)
    assert list(schema["properties"]) == schema["required"] == ["no", "yes"]
    assert all(value == {"type": "integer", "minimum": 0, "maximum": 100} for value in schema["properties"].values())
    assert schema["x-sum"] == 100
