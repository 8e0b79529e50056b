"""The embedded data set: short triage vignettes whose true probability of "urgent" is known.

A vignette is a set of findings. Findings give a probability (`bayes_probability`), the probability gives the label by a
draw, findings and label give the explanation. Everything that counts stands in the text, so the best that any model
can do is known: it is the generating probability itself.

- A finding is said in one of few phrases, so that a small model can learn the task from some thousand rows.
- A split owns the findings whose hash falls to it, so no two splits share a text, whatever their sizes and seeds.
- No findings come twice in a split: a bitmap of fixed size remembers their hashes, so memory does not grow.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from clsgen_dist.records import SPLITS, Row

#: Rows that one split can have at most; the bitmap stays nearly empty up to here.
MAX_ROWS = 1_000_000
#: Log-odds of "urgent" before any finding.
BASE_LOG_ODDS = -2.4
#: Log-odds from which an explanation concedes what speaks against it.
_CONCEDED_LOG_ODDS = 1.1
_BITMAP_BYTES = 2**23
_BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """One value of an aspect of the patient.

    Attributes:
        name: what it is, unique in its aspect.
        share: how often a vignette has it, relative to the other findings of its aspect.
        weight: what it adds to the log-odds of "urgent".
        phrases: ways to say it in a vignette; {n} is a number.
        reason: how an explanation names it.
        numbers: first, last and step of {n}, inclusive.
    """

    name: str
    share: float
    weight: float
    phrases: tuple[str, ...] = ("",)
    reason: str = ""
    numbers: tuple[float, float, float] | None = None


def _vitals(sign: str, *options: tuple[str, float, float, float, float]) -> tuple[Finding, ...]:
    """Findings of a vital sign, from (word, share, weight, first number, last number)."""
    unit, step = (" %" if sign == "oxygen" else ""), {"temperature": 0.4, "oxygen": 2}.get(sign, 5)
    findings = []
    for word, share, weight, first, last in options:
        phrases = (f"{sign} is {word} at {{n}}{unit}", f"{word} {sign} of {{n}}{unit}")
        findings.append(Finding(f"{word} {sign}", share, weight, phrases, f"a {word} {sign}", (first, last, step)))
    return tuple(findings)


def _complaint(name: str, share: float, weight: float, *phrases: str) -> Finding:
    return Finding(name, share, weight, phrases, phrases[0])


def _age(name: str, share: float, weight: float, first: int, last: int) -> Finding:
    article = "An" if name == "elderly" else "A"
    phrases = (f"{article} {name} {{person}} of {{n}}", f"{article} {name} {{person}}, {{n}},")
    return Finding(name, share, weight, phrases, f"{name} age", (first, last, 1))


_SAID: dict[str, tuple[Finding, ...]] = {
    "age": (_age("young", 0.3, -0.8, 18, 39), _age("middle-aged", 0.3, 0.0, 40, 64), _age("elderly", 0.4, 0.8, 65, 94)),
    "complaint": (
        _complaint("chest pain", 0.2, 0.8, "chest pain", "pain in the chest"),
        _complaint("breathlessness", 0.16, 1.0, "shortness of breath", "trouble breathing"),
        _complaint("head injury", 0.16, 0.5, "a head injury", "an injury to the head"),
        _complaint("stomach pain", 0.12, 0.4, "stomach pain", "pain in the stomach"),
        _complaint("back pain", 0.12, -0.6, "back pain", "pain in the back"),
        _complaint("sore throat", 0.12, -1.3, "a sore throat", "pain in the throat"),
        _complaint("rash", 0.12, -1.2, "a rash", "a skin rash"),
    ),
    "strength": (
        Finding("severe", 0.5, 1.6, (" that is severe", ", severe from the start"), "severe symptoms"),
        Finding("mild", 0.5, -1.4, (" that is mild", ", mild from the start"), "mild symptoms"),
    ),
    "course": (
        Finding("worse", 0.25, 1.1, ("It is getting worse.", "It got worse today."), "symptoms getting worse"),
        Finding("better", 0.25, -1.2, ("It is getting better.", "It got better today."), "symptoms getting better"),
    ),
    "behaviour": (
        Finding("confused", 0.25, 2.2, ("is confused", "seems confused"), "confused behaviour"),
        Finding("alert", 0.45, -0.7, ("is alert and calm", "seems alert"), "alert behaviour"),
    ),
    "skin": (Finding("sweating", 0.2, 1.7, ("is pale and sweating", "looks pale and sweaty"), "pale and sweaty skin"),),
    "history": (
        Finding("heart disease", 0.4, 0.8, ("has heart disease", "has known heart disease"), "heart disease"),
        Finding("diabetes", 0.35, 0.5, ("has diabetes", "has known diabetes"), "diabetes"),
        Finding("healthy", 0.35, -0.7, ("was always healthy", "has no earlier illness"), "no earlier illness"),
    ),
    "drug": (
        Finding("blood thinner", 0.45, 0.3, ("takes a blood thinner", "is on a blood thinner"), "a blood thinner"),
        Finding("steroid", 0.45, 0.4, ("takes a steroid", "is on a steroid"), "a steroid that weakens immunity"),
        Finding("no drugs", 0.35, -0.4, ("takes no drugs", "is on no drugs"), "no drugs"),
    ),
    "temperature": _vitals("temperature", ("high", 0.3, 0.8, 38.4, 40.0), ("normal", 0.2, -0.6, 36.4, 37.2)),
    "pulse": _vitals("pulse", ("fast", 0.25, 1.2, 105, 145), ("normal", 0.25, -0.7, 60, 90)),
    "oxygen": _vitals("oxygen", ("low", 0.27, 1.8, 82, 90), ("normal", 0.3, -0.7, 95, 99)),
    "pressure": _vitals("blood pressure", ("low", 0.22, 1.8, 75, 90), ("normal", 0.28, -0.7, 110, 135)),
}

#: Aspect -> its findings. A vignette has one of every aspect; "" where the text does not mention the aspect.
ASPECTS = {
    aspect: findings if aspect in ("age", "complaint") else (*findings, Finding("", 0.5, 0.0))
    for aspect, findings in _SAID.items()
}

#: Two findings that together weigh more than their sum: both, the extra log-odds, how an explanation names them.
INTERACTIONS: tuple[tuple[tuple[str, str], tuple[str, str], float, str], ...] = (
    (("complaint", "chest pain"), ("age", "elderly"), 1.0, "chest pain at an elderly age"),
    (("complaint", "breathlessness"), ("oxygen", "low oxygen"), 0.9, "shortness of breath with a low oxygen"),
    (("complaint", "head injury"), ("drug", "blood thinner"), 1.7, "a head injury on a blood thinner"),
    (("temperature", "high temperature"), ("drug", "steroid"), 1.5, "a high temperature on a steroid"),
)

_BY_NAME = {aspect: {finding.name: finding for finding in findings} for aspect, findings in ASPECTS.items()}
_VITALS = ("temperature", "pulse", "oxygen", "pressure")
_VERBS = ("has", "comes with", "reports")
_ORDERS = ("background state vitals", "vitals background state", "state vitals background")
#: How an explanation is framed, by label; {why} is a list of nouns, so the verbs are such as suit one or many.
_FRAMES = (
    (
        "A routine visit is enough, given {why}.",
        "There is no hurry, as {why} would suggest a harmless cause.",
        "This can wait because of {why}.",
    ),
    (
        "Urgent care is needed because of {why}.",
        "There is danger, as {why} would suggest a serious cause.",
        "This must be seen at once because of {why}.",
    ),
)
_CONCESSIONS = (("Although {but} may worry, ", "Despite {but}, "), ("Although {but} may reassure, ", "Despite {but}, "))
#: What can still be said for a label that no finding speaks for.
_LAST_RESORT = ("{complaint} that may still settle by itself", "{complaint} that may still turn serious")


def _contributions(findings: Mapping[str, str]) -> list[tuple[float, str]]:
    """What speaks for urgency (positive) or against it, and its name; two findings that interact are one reason."""
    alone, together = dict(findings), []
    for (aspect, name), (other_aspect, other_name), extra, reason in INTERACTIONS:
        if findings[aspect] == name and findings[other_aspect] == other_name:
            weight = extra + sum(_BY_NAME[a][alone.pop(a)].weight for a in (aspect, other_aspect) if a in alone)
            together.append((weight, reason))
    return together + [(_BY_NAME[a][name].weight, _BY_NAME[a][name].reason) for a, name in alone.items() if name]


def bayes_probability(findings: Mapping[str, str]) -> float:
    """Probability that a patient with these findings is urgent; no model can know more.

        p = 1 / (1 + exp(-(BASE_LOG_ODDS + sum of ASPECTS weights + sum of INTERACTIONS weights)))

    where the first sum runs over the finding of every aspect, and the second over the pairs that both hold. A finding
    that is not mentioned has weight 0.

    Args:
        findings: name of the finding of every aspect in `ASPECTS`.

    Returns:
        A probability in (0, 1), rounded to 6 digits so that platforms agree.
    """
    log_odds = BASE_LOG_ODDS + math.fsum(weight for weight, _ in _contributions(findings))
    return round(1.0 / (1.0 + math.exp(-log_odds)), 6)


def vignettes(num_rows: int, *, seed: int, split: str) -> Iterator[Row]:
    """Makes the rows of one split, one at a time.

    The first rows are the same whatever `num_rows` is. Texts are unique; two splits share none, whatever their seeds.

    Args:
        num_rows: rows to make, 0 to `MAX_ROWS`.
        seed: 0 or more.
        split: one of `SPLITS`.

    Returns:
        Rows with label 0 (not urgent) or 1 (urgent), an explanation and `true_probability` of label 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if not 0 <= num_rows <= MAX_ROWS:
        raise ValueError(f"num_rows is {num_rows}, expected 0 to {MAX_ROWS}")
    return _rows(num_rows, seed, split)


def _rows(num_rows: int, seed: int, split: str) -> Iterator[Row]:
    own = SPLITS.index(split)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, own])))
    seen = bytearray(_BITMAP_BYTES)
    num_made = 0
    while num_made < num_rows:
        for draws in generator.random((_BLOCK_ROWS, _NUM_DRAWS)).tolist():
            findings, numbers, person = _draw_patient(draws)
            slot, owner = divmod(_hash(findings, numbers, person), len(SPLITS))
            byte, bit = slot // 8 % len(seen), 1 << slot % 8
            if owner != own or seen[byte] & bit:
                continue
            seen[byte] |= bit
            num_made += 1
            probability = bayes_probability(findings)
            label = int(draws[-1] < probability)
            yield Row(
                id=f"vignette-{split}-{num_made:06d}",
                text=_text(findings, numbers, person, draws[-_NUM_STYLES:]),
                label=label,
                explanation=_explanation(findings, label, draws[-2], draws[-3]),
                true_probability=probability,
            )
            if num_made == num_rows:
                return


_CUMULATED = {a: list(accumulate(f.share for f in findings)) for a, findings in ASPECTS.items()}
# Uniform draws of a row: a finding and a number an aspect, the sex, then styles; the last one draws the label.
_NUM_STYLES = len(ASPECTS) + 6
_NUM_DRAWS = 2 * len(ASPECTS) + 1 + _NUM_STYLES


def _pick(options: tuple[str, ...], draw: float) -> str:
    return options[int(draw * len(options))]


def _draw_patient(draws: list[float]) -> tuple[dict[str, str], dict[str, str], str]:
    findings, numbers = {}, {}
    for index, (aspect, options) in enumerate(ASPECTS.items()):
        sums = _CUMULATED[aspect]
        finding = options[min(bisect_right(sums, draws[2 * index] * sums[-1]), len(options) - 1)]
        findings[aspect] = finding.name
        if finding.numbers is not None:
            first, last, step = finding.numbers
            value = first + step * int(draws[2 * index + 1] * (round((last - first) / step) + 1))
            numbers[aspect] = f"{value:.1f}" if step < 1 else f"{value:.0f}"
    return findings, numbers, _pick(("man", "woman"), draws[2 * len(ASPECTS)])


def _hash(findings: Mapping[str, str], numbers: Mapping[str, str], person: str) -> int:
    """A number of all that a text says, however it says it: texts that are equal have equal hashes."""
    key = "|".join((person, *findings.values(), *numbers.values()))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def _text(findings: Mapping[str, str], numbers: Mapping[str, str], person: str, styles: list[float]) -> str:
    said = {
        aspect: _pick(_BY_NAME[aspect][name].phrases, style).format(person=person, n=numbers.get(aspect))
        for (aspect, name), style in zip(findings.items(), styles, strict=False)
    }
    pronoun = "He" if person == "man" else "She"
    vital_style = int(styles[len(ASPECTS)] * 2)  # one style for all vital signs of a text
    vitals = [_BY_NAME[a][findings[a]].phrases[vital_style].format(n=numbers[a]) for a in _VITALS if findings[a]]
    sentences = {
        "background": _sentence(pronoun, [said["history"], said["drug"]]),
        "state": _sentence(pronoun, [said["behaviour"], said["skin"]]),
        "vitals": _sentence("Measured:" if vital_style else "", vitals),
    }
    verb, order = _pick(_VERBS, styles[len(ASPECTS) + 1]), _pick(_ORDERS, styles[len(ASPECTS) + 2])
    opening = f"{said['age']} {verb} {said['complaint']}{said['strength']}."
    return " ".join(part for part in (opening, said["course"], *(sentences[name] for name in order.split())) if part)


def _sentence(start: str, parts: list[str]) -> str:
    words = f"{start} {_listed([part for part in parts if part])}".strip()
    return f"{words[0].upper()}{words[1:]}." if words not in (start, "") else ""


def _listed(parts: list[str]) -> str:
    return " and ".join(", ".join(parts).rsplit(", ", 1)) if parts else ""


def _explanation(findings: Mapping[str, str], label: int, frame: float, concession: float) -> str:
    """The strongest findings for the label, and the strongest one against it where that is strong."""
    sign = 1 if label else -1
    ranked = sorted((sign * weight, reason) for weight, reason in _contributions(findings))
    supporting = [reason for weight, reason in reversed(ranked) if weight > 0]
    opposing = [reason for weight, reason in ranked if weight <= -_CONCEDED_LOG_ODDS][:1]
    if not supporting:  # nothing speaks for the label, which was drawn against the odds
        complaint = _BY_NAME["complaint"][findings["complaint"]].reason
        supporting = [_LAST_RESORT[label].format(complaint=complaint)]
        opposing = [reason for reason in opposing if complaint not in reason]
    text = _pick(_FRAMES[label], frame).format(why=_listed(supporting[: 2 if opposing else 3]))
    but = _pick(_CONCESSIONS[label], concession).format(but=opposing[0]) if opposing else ""
    return but + (text[0].lower() if but else text[0]) + text[1:]
