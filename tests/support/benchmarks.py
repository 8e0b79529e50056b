"""Files of the shape of CliniFact's and LCD-30's, traps included; every text in them is invented."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

#: Where the examples look for CliniFact, below the folder where a command is started.
CLINIFACT = Path("data/CliniFact/data/processed/primary_outcome_publication_dataset")

#: A word of every title, which no prompt may hold.
TITLE_WORD = "Titleword"

_COLUMNS = [
    *("index", "nctId", "claim", "PMID", "article_title", "article_abstract", "label", "outcome_type"),
    *("outcome_title", "outcome_description", "intervention_group_title", "comparator_group_title"),
    *("intervention_group_description", "comparator_group_description", "intervention_group_intervention_label"),
    *("comparator_group_intervention_label", "intervention_group_arm_group_type", "comparator_group_arm_group_type"),
    *("pValues", "statisticalMethods", "nonInferiorityTypes", "Publication Date"),
]
_FINDINGS = (
    "There was no difference between the arms (P = .41).",
    "The score improved significantly more than in the other arm (P < .001).",
    "We describe the design of a questionnaire.",
)
_DRUGS = ("Amboril", "Cestatin", "Dorvane", "Fentrol", "Gavomab", "Helidin")


def clinifact_records(split: str, num_rows: int, num_trials: int = 40) -> list[dict[str, Any]]:
    """Rows of one split; trials are those of the other splits, too, since they are drawn row by row."""
    draw = random.Random(split)
    start = {"train": 5000, "validation": 100, "test": 9000}[split]
    rows: list[dict[str, Any]] = []
    for number in range(num_rows):
        label = draw.choice((0, 1, 2, 2))
        drug, week = draw.choice(_DRUGS), draw.randint(2, 60)
        abstract = (
            f'BACKGROUND: {drug}, a "new" drug; {split} {number}.\nMETHODS: {{arm}} A, n={week}.\n\n{_FINDINGS[label]}'
        )
        rows.append(
            dict.fromkeys(_COLUMNS, "")
            | {
                "index": start - 3 * number,
                "nctId": f"NCT{draw.randrange(num_trials):08d}",
                "claim": f"{drug} is superior to Placebo, 20 mg in terms of Score at week {week}",
                "PMID": draw.randrange(10**7, 10**8),
                "article_title": f"{TITLE_WORD} {drug}: a trial",
                "article_abstract": abstract,
                "label": label,
                "outcome_description": "Line one\nline two" if number % 5 == 0 else "Score",
                "intervention_group_description": "" if number % 7 == 0 else "20 mg \\<daily",
                "pValues": "['.08']",
                "Publication Date": "2008-Sep-N/A",
            }
        )
    rows[3]["article_abstract"] = ""
    if split == "train":
        rows[2] |= {
            "claim": rows[1]["claim"],
            "article_abstract": rows[1]["article_abstract"],
            "label": rows[1]["label"],
        }
    return rows


def write_clinifact(folder: Path, num_rows: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Writes the files where the examples look for them, below a folder; the test file as from another system."""
    place = folder / CLINIFACT
    place.mkdir(parents=True)
    splits = {split: clinifact_records(split, most) for split, most in num_rows.items()}
    for split, rows in splits.items():
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\r\n" if split == "test" else "\n")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().removesuffix("\r\n")
        (place / f"{split}_set.csv").write_bytes(content.encode("utf-8"))
    return splits


def lcd_records(split: str, num_rows: int) -> list[dict[str, Any]]:
    """Notes on one line, marks of lines in them, one death in six."""
    draw = random.Random(split)
    rows = []
    for number in range(num_rows):
        dies = int(number % 6 == 0)
        course = "Comfort care was chosen." if dies else "Walks the corridor, eats well."
        text = (
            f"Service: MEDICINE <cr> Hospital course: {split} {number}, {draw.randint(40, 90)} years. {course} <cr> ["
        )
        rows.append(
            {"text": text * 3, "out_hospital_mortality_30": dies, "data_type": split, "id": f"0x{split}{number:04x}"}
        )
    return rows


def write_lcd(folder: Path, num_rows: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Writes data/lcd30/{train,dev,test}.json below a folder."""
    place = folder / "data" / "lcd30"
    place.mkdir(parents=True)
    splits = {split: lcd_records(split, most) for split, most in num_rows.items()}
    for split, rows in splits.items():
        (place / f"{split}.json").write_text(json.dumps({"data": rows}, indent=2), encoding="utf-8")
    return splits
