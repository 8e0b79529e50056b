"""Faults of reasons: planted ones are found, those of people's own reasons are few."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsgen_dist.config.explain import Checks
from clsgen_dist.config.sections import Task
from clsgen_dist.errors import ConfigError
from clsgen_dist.explain.checks import CAUSES, Checker, tokens_of, words_of
from clsgen_dist.explain.prompts import request_words
from tests.support.tiny import ROOT

TASK = Task(question="Does this patient need urgent care?", labels=["no", "yes"])
CHECKER = Checker(TASK, Checks(), request=request_words("Mind the age of the patient and the time since the onset."))
TEXT = "A man of 71 years has chest pain that began two hours ago and goes to the left arm. He is pale and sweats."
LEAKS = ("refusal", "told", "repeats_request", "label_only")
GOOD = (
    "Chest pain that goes to the left arm, with a pale and sweating face, points to a heart attack.",
    "No fever and no pain since Monday; nothing speaks for haste.",
    "The patient is sorry for being late, and the nurse was told of the chest pain.",
    "We were asked to see him for chest pain, and it has grown worse.",
    "He was told to rest, but the pain of the chest goes on.",
    "The correct dose was given, and the pain is gone.",
    "He cannot provide for himself, and nobody is at home.",
    "The man answered all questions rightly, so the head is clear.",
    "He needs urgent care: the pain began two hours ago.",
    "उसे सीने में दर्द है और वह पीला पड़ गया है।",
    "病人胸痛两个小时,面色苍白,出冷汗。",
    "ผู้ป่วยเจ็บหน้าอกมาสองชั่วโมงและเหงื่อออกมาก",
    "يعاني المريض من ألم شديد في الصدر منذ ساعتين.",
    "Больной бледен и потеет, боль в груди началась два часа назад.",
)


def fault(reason: str, text: str = TEXT, **settings: object) -> str | None:
    return Checker(TASK, Checks(**settings), request=request_words("")).fault_of(reason, text=text)


@pytest.mark.parametrize("reason", GOOD)
def test_a_reason_that_stands_by_itself_passes(reason: str) -> None:
    assert CHECKER.fault_of(reason, text=TEXT) is None


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("empty", ""),
        ("empty", " \n"),
        ("unreadable", "..."),
        ("refusal", "I'm sorry, but I can't help with that request."),
        ("refusal", "Sorry, I am not able to judge this."),
        ("refusal", "As an AI language model, I have no opinion on chest pain."),
        ("refusal", "I can\u2019t assist with medical questions of this kind."),
        ("told", "As stated in the prompt, the pain needs care."),
        ("told", "The given label fits the pain of the chest."),
        ("told", "The correct answer is yes because the chest hurts and the arm too."),
        ("told", "You told me that it is urgent, and the pain shows it."),
        ("told", "According to the instructions, the pain of the chest is urgent."),
        ("told", "I was told that the answer is yes, and the chest hurts."),
        ("told", "The label is yes because the chest hurts."),
        ("told", "It is labelled as \u201cyes\u201d since the chest hurts."),
        ("told", "The answer you gave fits the pain in the chest."),
        ("repeats_request", "Does this patient need urgent care? The chest hurts, so it cannot wait."),
        ("repeats_request", "The chest hurts.\n<text>\nA man, 54, short of breath."),
        ("repeats_request", "The possible labels are: urgent, and the chest hurts."),
        ("repeats_request", "The chest hurts, and the label of this text is clear from that."),
        ("repeats_request", "Write one to three plain sentences that say why this label holds. The chest hurts."),
        ("repeats_request", "I mind the age of the patient and the time since the onset, and the pain."),
        ("label_only", "Yes."),
        ("label_only", "The answer is yes."),
        ("label_only", "**No**, this is clearly not the case: no."),
        ("label_only", "Yes, this patient needs urgent care."),
        ("label_only", "This patient needs urgent care."),
        ("too_short", "Chest hurts."),
        ("too_long", " ".join(f"Word{number} is new." for number in range(70))),
        ("repetition", "The chest hurts a lot. The chest hurts a lot. The chest hurts a lot."),
        ("repetition", "The chest hurts " + "very " * 9 + "much, as all of the others here have said before him."),
        ("repetition", "The chest of the man hurts so muchhhhhhhhhhhhh."),
        ("repetition", "胸痛" * 9),
        ("copied", "Chest pain that began two hours ago and goes to the left arm."),
        ("unreadable", "The chest\u0007 hurts a lot."),
        ("unreadable", "The chest hurts \ufffd\ufffd a lot."),
        ("unreadable", "The man\u00e2\u20ac\u2122s chest hurts a lot."),
        ("unreadable", "The chest hurts a lot.<|im_end|>"),
        ("unreadable", "The chest hurts \ue000 a lot."),
        ("unreadable", "71 : 2 = 35.5 ; a 0.5 + 0.7 / 12 > 3"),
    ],
)
def test_a_fault_is_found_and_named(cause: str, reason: str) -> None:
    assert CHECKER.fault_of(reason, text=TEXT) == cause
    assert cause in CAUSES


def test_what_the_text_itself_says_is_no_leak() -> None:
    assert fault("The given label fits the drug in the box.") == "told"
    assert fault("The given label fits the drug in the box.", text="It has the given label of a drug.") is None
    assert fault("He acted according to the instructions of his doctor.") == "told"
    assert fault("He acted according to the instructions of his doctor.", text="Her instructions were clear.") is None


def test_label_names_of_any_task_are_no_reason() -> None:
    task = Task(
        question="Does the premise entail the hypothesis, or contradict it?", labels=["contradiction", "entailment"]
    )
    checker = Checker(task, Checks())
    assert checker.fault_of("The premise entails the hypothesis.", text="Premise: A dog.") == "label_only"
    assert checker.fault_of("It is an entailment, clearly.", text="Premise: A dog.") == "label_only"
    assert checker.fault_of("A dog is not a cat.", text="Premise: A dog.") is None
    chinese = Checker(Task(question="急吗", labels=["否", "是"]), Checks())
    assert chinese.fault_of("答案是:是。", text="胸痛") == "label_only"
    assert chinese.fault_of("答案是:是。因为病人胸痛很久了。", text="发热") is None


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("The answer is yes.", {"leak": False}),
        ("The chest hurts a lot. " * 3, {"form": False}),
        ("Chest hurts.", {"min_tokens": 3}),
        (" ".join(f"Word{number} is new." for number in range(70)), {"max_tokens": 280}),
        ("The chest hurts a lot. " * 3, {"max_repeated_share": 0.8}),
        ("Chest pain that began two hours ago and goes to the left arm.", {"max_copied_share": 1.0}),
    ],
)
def test_each_check_is_a_setting(reason: str, settings: dict[str, object]) -> None:
    assert fault(reason) is not None
    assert fault(reason, **settings) is None


def test_copying_is_a_share() -> None:
    half = "Chest pain that began two hours ago and goes to the left arm, which is what a heart attack feels like."
    assert fault(half) is None
    assert fault(half, max_copied_share=0.3) == "copied"


def test_a_language_is_judged_only_where_it_is_sure() -> None:
    german = "Der Mann hat seit zwei Stunden Schmerzen in der Brust, die in den linken Arm ziehen, und er ist blass."
    english = "The man has had pain in his chest for two hours, it goes to the left arm, and he looks very pale."
    assert fault(german) is None
    assert fault(german, language="en") == "language"
    assert fault(english, language="de") == "language"
    assert fault(german, language="de") is fault(english, language="en") is None
    assert fault("Der Mann ist ganz blass.", language="en") is None
    assert fault("p53 MDM2 TP63 apoptosis IL-6 TNF-alpha CRP troponin creatinine BNP", language="en") is None


def test_an_unknown_language_is_an_error_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"explain\.checks\.language: found 'xx'.*\ben\b"):
        Checker(TASK, Checks(language="xx"))


def test_words_and_marks_of_any_script() -> None:
    assert tokens_of("Non-urgent, isn\u2019t it? COVID-19: -1") == [
        *("non-urgent", ",", "isn't", "it", "?", "covid-19", ":", "-1"),
    ]
    assert words_of("高烧,40 度") == ["高", "烧", "40", "度"]
    assert words_of("दर्द है।") == ["दर्द", "है"]
    assert words_of("เจ็บ") == ["เ", "จ็", "บ"]


@given(reason=st.text(max_size=120), text=st.text(max_size=60))
def test_any_reason_can_be_checked(reason: str, text: str) -> None:
    assert CHECKER.fault_of(reason, text=text) in (None, *CAUSES)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "question", "labels", "most_leaks"),
    [
        ("pubmedqa", "Does the abstract answer the question with yes or with no?", ["no", "yes"], 0.005),
        ("esnli_binary", "Does the premise entail the hypothesis?", ["contradiction", "entailment"], 0.01),
        ("esnli_binary", "Is the second sentence true, given the first one?", ["no", "yes"], 0.01),
    ],
)
def test_people_s_own_reasons_seldom_fail(name: str, question: str, labels: list[str], most_leaks: float) -> None:
    path = ROOT.parent / "shared" / "data" / f"{name}_train.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/data")
    checker = Checker(Task(question=question, labels=labels), Checks(language="en"), request=request_words(""))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    causes = Counter(checker.fault_of(row["explanation"], text=row["text"]) for row in rows if row["explanation"])
    num_reasons = causes.total()
    assert num_reasons >= 300
    assert sum(causes[cause] for cause in LEAKS) / num_reasons < most_leaks, causes
    assert sum(count for cause, count in causes.items() if cause) / num_reasons < 0.02, causes
