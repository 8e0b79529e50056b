"""One explained set as one page, for the person who decides whether a model may learn from its reasons.

Self-contained and printable, without scripts or network. Rows and reasons come from anywhere, so the template escapes
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from clsgen_dist.page import Filters, write_page

#: Example rows that the page shows, at most.
MAX_EXAMPLES = 12

#: Characters of a row's text that an example shows.
MAX_TEXT_CHARACTERS = 600

#: A class whose kept share lies further below the best one is warned of.
MAX_SHARE_GAP = Fraction(5, 100)

#: A teacher that leaves more rows than this without a reason is warned of.
MIN_KEPT_SHARE = Fraction(1, 2)

#: How a row can end, with the title and the meaning that the page gives it.
STATUSES = (
    ("kept", "Kept", "a reason passed within the usual attempts"),
    ("rescued", "Rescued", "passed only in the further attempts that their class was given"),
    ("given up", "Given up", "no reason passed; the row stays, with its label and without a reason"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """What became of the rows of one class in one split.

    Attributes:
        label: name of the label; None stands for the rows without one.
        num_rows_in: rows read.
        num_rows_out: rows written; the page warns where they are not as many.
        num_kept_first: rows with a reason before the rescue.
        num_rescued: further rows with a reason after it.
    """

    label: str | None
    num_rows_in: int
    num_rows_out: int
    num_kept_first: int
    num_rescued: int

    @property
    def num_kept(self) -> int:
        """Rows with a reason in the end."""
        return self.num_kept_first + self.num_rescued


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """What became of the rows of one split, class by class in the order of the task's labels."""

    name: str
    classes: tuple[ClassCounts, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCauses:
    """Why rows of one class, over all splits, have no reason, and why attempts at them were refused.

    Attributes:
        label: name of the label; None stands for the rows without one.
        rows: cause -> rows that ended without a reason.
        attempts: cause -> refused attempts, those at rows that were kept in the end included.
    """

    label: str | None
    rows: Mapping[str, int]
    attempts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassAgreement:
    """What the teacher itself answered to the rows of one class, over all splits, before it was told the label."""

    label: str | None
    num_agreed: int
    num_disagreed: int
    num_unanswered: int

    @property
    def num_asked(self) -> int:
        """Rows that the teacher was asked about."""
        return self.num_agreed + self.num_disagreed + self.num_unanswered


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What the teacher took; `cost` is in the currency of the prices, None where none are set."""

    num_requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row to read. `label` is a name, `cause` a key of `ExplainFacts.cause_sentences` or None."""

    id: str
    label: str | None
    text: str
    reason: str | None
    status: Literal["kept", "rescued", "given up"]
    cause: str | None
    num_attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainFacts:
    """All that the page says.

    Attributes:
        run, question, labels: of the task.
        teacher: column, evidence, endpoint or local.
        model: name of the teacher's model, or None.
        teacher_sentence: what the teacher is, in one sentence.
        splits: those that were explained.
        causes: of each class that has any.
        cause_sentences: what a cause means, in one sentence; a cause that is missing here is shown as it is.
        agreement: of each class; empty where the teacher was not asked for answers of its own.
        usage: requests, tokens, cost.
        settings: dotted name -> value.
        prompts: name -> words as sent, the place of the text marked.
        examples: rows to read; of more than `MAX_EXAMPLES`, the first of each status are shown.
    """

    run: str
    question: str
    labels: tuple[str, ...]
    teacher: str
    model: str | None
    teacher_sentence: str
    splits: tuple[SplitCounts, ...]
    causes: tuple[ClassCauses, ...]
    cause_sentences: Mapping[str, str]
    agreement: tuple[ClassAgreement, ...]
    usage: Usage
    settings: Mapping[str, str]
    prompts: Mapping[str, str]
    examples: tuple[Example, ...]


def write_explain_report(path: Path, facts: ExplainFacts) -> None:
    """Write the page; the same facts give the same bytes.

    Args:
        path: the HTML file to write; its folder exists.
        facts: what to say.
    """
    filters: Filters = {
        "thousands": lambda number: f"{number:,}",
        "cost": lambda cost: f"{cost:.4f}" if 0 < cost < 1 else f"{cost:,.2f}",
        "class_name": lambda label: "no label" if label is None else label,
    }
    write_page(
        path,
        "explain/report.html.j2",
        filters,
        f=facts,
        headline=say_headline(facts),
        warnings=find_warnings(facts),
        labelled=_labelled(facts),
        causes=_rank_causes(facts.causes),
        kinds=_choose_examples(facts.examples),
        share=_share,
        clip=_clip,
    )


def say_headline(facts: ExplainFacts) -> str:
    """How many rows have a reason, in words. Only labelled rows count: a reason speaks for a label."""
    counts = _labelled(facts)
    num_rows, num_out = sum(c.num_rows_in for c in counts), sum(c.num_rows_out for c in counts)
    num_kept = sum(c.num_kept for c in counts)
    unlabelled = [c for split in facts.splits for c in split.classes if c.label is None and c.num_rows_in]
    if not num_rows:
        words = "There are no labelled rows."
    else:
        balanced = all(c.num_rows_in == c.num_rows_out for c in counts)
        words = (
            f"{num_kept:,} of {num_rows:,} {'labelled ' if unlabelled else ''}rows ({_share(num_kept, num_rows)}) "
            f"{'has' if num_kept == 1 else 'have'} a reason; "
            + (f"every one of the {num_rows:,} keeps its label." if balanced else f"{num_out:,} rows were written.")
        )
    if unlabelled:
        num_more = sum(c.num_rows_in for c in unlabelled)
        words += f" {num_more:,} more have no label, and {sum(c.num_kept for c in unlabelled):,} of these a reason."
    return words


def find_warnings(facts: ExplainFacts) -> list[str]:
    """What speaks against training on this set, one sentence or two each; empty where nothing does."""
    warnings = [
        f"In {split.name}, {c.num_rows_in:,} rows {_of_class(c.label)} were read and {c.num_rows_out:,} written. "
        "Rows were lost or doubled: do not train on this set."
        for split in facts.splits
        for c in split.classes
        if c.num_rows_in != c.num_rows_out
    ]
    counts = _labelled(facts)
    num_rows, num_kept = sum(c.num_rows_in for c in counts), sum(c.num_kept for c in counts)
    if num_kept < MIN_KEPT_SHARE * num_rows:
        warnings.append(
            f"Fewer than half of the rows have a reason ({num_kept:,} of {num_rows:,}): this teacher is a poor one for "
            "this task. See the causes below, and try another teacher, model or guidance before training on these."
        )
    for split in facts.splits:
        shared = [
            (Fraction(c.num_kept, c.num_rows_in), c) for c in split.classes if c.label is not None and c.num_rows_in
        ]
        most, best = max(shared, key=lambda pair: pair[0], default=(Fraction(0), None))
        behind = [c for share, c in shared if most - share > MAX_SHARE_GAP]
        if best and behind:
            each = "; ".join(
                f"\u201c{c.label}\u201d {_share(c.num_kept, c.num_rows_in)} ({c.num_kept:,} of {c.num_rows_in:,})"
                for c in behind
            )
            warnings.append(
                f"In {split.name}, the classes do not keep equal shares of reasons. More than 5 points below "
                f"\u201c{best.label}\u201d ({_share(best.num_kept, best.num_rows_in)}): {each}. "
                "The model would see too few reasons for what is kept less."
            )
    return warnings


def _labelled(facts: ExplainFacts) -> list[ClassCounts]:
    return [c for split in facts.splits for c in split.classes if c.label is not None]


def _of_class(label: str | None) -> str:
    return "without a label" if label is None else f"of \u201c{label}\u201d"


def _rank_causes(causes: Iterable[ClassCauses]) -> list[tuple[str, int, int, list[tuple[str | None, int, int]]]]:
    """(cause, rows, refused attempts, the same by label) of each cause, the most frequent first."""
    parts: dict[str, list[tuple[str | None, int, int]]] = {}
    for c in causes:
        for cause in c.rows.keys() | c.attempts.keys():
            parts.setdefault(cause, []).append((c.label, c.rows.get(cause, 0), c.attempts.get(cause, 0)))
    sums = [(cause, sum(rows for _, rows, _ in p), sum(n for _, _, n in p), p) for cause, p in parts.items()]
    return sorted(sums, key=lambda entry: (-entry[1], -entry[2], entry[0]))


def _choose_examples(examples: tuple[Example, ...]) -> list[tuple[str, str, list[Example]]]:
    """(title, meaning, examples) of each status that has any; the statuses take turns, up to the limit."""
    turns = zip_longest(*([e for e in examples if e.status == status] for status, _, _ in STATUSES))
    chosen = [example for turn in turns for example in turn if example is not None][:MAX_EXAMPLES]
    kinds = [(title, meaning, [e for e in chosen if e.status == status]) for status, title, meaning in STATUSES]
    return [kind for kind in kinds if kind[2]]


def _share(part: int, whole: int) -> str:
    """A share for people; rounding never makes it look like none or all."""
    if not whole:
        return "n/a"
    percent = f"{100 * part / whole:.1f} %"
    if percent == "100.0 %" and part < whole:
        return "> 99.9 %"
    return "< 0.1 %" if percent == "0.0 %" and part else percent


def _clip(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    left_out = len(text) - MAX_TEXT_CHARACTERS
    return f"{text[:MAX_TEXT_CHARACTERS].rstrip()} \u2026 [{left_out:,} more characters]"
