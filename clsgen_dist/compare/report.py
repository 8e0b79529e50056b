"""A comparison for people: table.md, comparison.png, comparison.html; and comparison.json for programs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clsgen_dist.compare.columns import COLUMN, COLUMNS
from clsgen_dist.compare.picture import draw_comparison
from clsgen_dist.integrity import write_json
from clsgen_dist.page import embed_picture, write_page

#: Pairs of the differences that the table shows, by the numbers that it shows of them.
_SHOWN_DIFFERENCES = ("auroc", "f1", "nll", "ece")


def write_outputs(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Writes all four files; the same content gives the same bytes. Returns the content.

    Args:
        folder: where to write; it exists.
        content: see `results.gather`.
    """
    write_json(folder / "comparison.json", content)
    unfinished = folder / ".table.md.tmp"
    unfinished.write_text(table_page(content), encoding="utf-8")
    os.replace(unfinished, folder / "table.md")
    picture = draw_comparison(folder / "comparison.png", content)
    keys = shown_columns(content)
    write_page(
        folder / "comparison.html",
        "compare/comparison.html.j2",
        {"thousands": lambda count: f"{count:,}"},
        c=content,
        picture=None if picture is None else embed_picture(picture),
        heads=[COLUMN[key] for key in keys],
        lines=[(row, [cell(row, key) for key in keys]) for row in content["rows"]],
        differences=_difference_lines(content),
        legend=legend(content),
        notes=notes(content),
    )
    return content


def shown_columns(content: Mapping[str, Any]) -> list[str]:
    """The columns that any arm has a number for."""
    return [c.key for c in COLUMNS if any(row["numbers"][c.key] is not None for row in content["rows"])]


def cell(row: Mapping[str, Any], key: str) -> str:
    """A number with what is known of its doubt: mean \u00b1 spread over seeds, [95 % interval]."""
    numbers, digits = row["numbers"][key], COLUMN[key].digits
    if numbers is None:
        return ""
    words = f"{numbers['mean']:.{digits}f}"
    if numbers["sd"] is not None:
        words += f" \u00b1 {numbers['sd']:.{digits}f}"
    if numbers["ci"] is not None:
        words += " [" + ", ".join(f"{end:.{digits}f}" for end in numbers["ci"]) + "]"
    return words


def legend(content: Mapping[str, Any]) -> str:
    """What stands in a cell."""
    seeds = max((len(row["runs"]) for row in content["rows"]), default=0)
    spread = f"mean \u00b1 standard deviation over {seeds} seeds, where there are seeds; " if seeds > 1 else ""
    return (
        f"{content['num_test_rows']:,} test rows in {content['num_groups']:,} groups, the same for all arms. A cell: "
        f"{spread}[95 % interval over resampled groups of test rows{', of the mean over seeds' if seeds > 1 else ''}]. "
        "Probabilities are calibrated on the calibration split, but for the arm that says raw."
    )


def notes(content: Mapping[str, Any]) -> list[str]:
    """What a reader must know of what is not there."""
    found = [f"{name} failed: {words}" for name, words in content["failed"].items()]
    if content["missing"]:
        found.append(f"not finished yet: {', '.join(content['missing'])}")
    for row in content["rows"]:
        if row["num_rows"] and row["num_rows"] < content["num_test_rows"]:
            found.append(f"{row['name']} was measured on {row['num_rows']:,} test rows alone")
        if row["num_unanswered"]:
            found.append(
                f"{row['name']}: of {row['num_unanswered']:,} test rows nothing was said that could be understood; the "
                "share of each label stands in"
            )
    return found


def table_page(content: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    keys = shown_columns(content)
    lines = [f"# {content['name']}", "", legend(content), ""]
    lines += _table(["arm", *(COLUMN[key].title for key in keys)], [
        [_plain(row["name"]), *(cell(row, key) for key in keys)] for row in content["rows"]
    ])  # fmt: skip
    lines += ["", *(f"- {COLUMN[key].title}: {COLUMN[key].meaning}" for key in keys)]
    if content["differences"]:
        heads = ["difference", "rows", *(COLUMN[key].title for key in _SHOWN_DIFFERENCES)]
        lines += ["", "## Differences on the same rows, paired", "", *_table(heads, _difference_lines(content))]
    lines += ["", "## Claims", ""]
    for claim in content["claims"]:
        whose = "" if claim["of"] == "paper" else " (ours, not the paper's)"
        lines.append(f"- **{claim['verdict']}**: {claim['claim']}{whose} {claim['words']}.")
    found = notes(content)
    lines += ["", "## Notes", "", *(f"- {note}" for note in found)] if found else []
    return "\n".join(lines) + "\n"


def _difference_lines(content: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for found in content["differences"]:
        cells = []
        for key in _SHOWN_DIFFERENCES:
            mean, span = found["numbers"][key]["mean"], found["numbers"][key]["ci"]
            cells.append(f"{mean:+.3f}" + ("" if span is None else f" [{span[0]:+.3f}, {span[1]:+.3f}]"))
        lines.append([f"{found['first']} less {found['second']}", f"{found['num_rows']:,}", *cells])
    return lines


def _table(heads: list[str], lines: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (heads, rule, *lines)]


def _plain(words: str) -> str:
    return words.replace("_", " ")


def console_table(content: Mapping[str, Any], folder: Path) -> str:
    """What is printed at the end: the main numbers, the claims, and where the rest is."""
    keys = [key for key in ("auroc", "f1", "nll", "ece", "kappa", "auroc_alignment", "general_text_change", "rep_4")
            if key in shown_columns(content)]  # fmt: skip
    lines = ["", "arm".ljust(28) + "".join(COLUMN[key].title.rjust(17) for key in keys)]
    for row in content["rows"]:
        cells = []
        for key in keys:
            numbers, digits = row["numbers"][key], COLUMN[key].digits
            spread = "" if numbers is None or numbers["sd"] is None else f" \u00b1 {numbers['sd']:.{digits}f}"
            cells.append("" if numbers is None else f"{numbers['mean']:.{digits}f}{spread}")
        lines.append(_plain(row["name"])[:27].ljust(28) + "".join(text.rjust(17) for text in cells))
    lines.append("")
    lines += [f"{claim['verdict'] + ':':<15} {claim['claim']} {claim['words']}" for claim in content["claims"]]
    lines += ["", *notes(content), f"comparison: {folder / 'comparison.html'}", f"table:      {folder / 'table.md'}"]
    return "\n".join(lines)
