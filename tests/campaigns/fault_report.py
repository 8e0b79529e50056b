"""What became of the faults of `faults.py`: a JSON that grows case by case, and docs/faults.md made from it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.tiny import ROOT

RECORD = ROOT / "benchmarks" / "out" / "faults.json"
PAGE = ROOT / "docs" / "faults.md"
PACKAGES = ("torch", "deepspeed", "transformers", "peft", "ray", "mlflow")


@dataclass
class Case:
    """One run and what it went through.

    Attributes:
        told: what happened, for a reader.
        tried, survived: faults that hit it, and those after which all was as it should be.
        seconds: of each fault, from it to the next step that was not taken before.
        numbers: what else was measured.
    """

    told: str
    tried: int
    survived: int
    seconds: list[float] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


def conditions(command: str) -> dict[str, Any]:
    """Machine, versions, date and command of a campaign that begins now."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), **versions},
        "commit": commit.stdout.strip() or "unknown",
        "command": command,
    }


class Record:
    """The JSON: rows by name, each with its conditions and cases."""

    def __init__(self, path: Path = RECORD) -> None:
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def begin(self, name: str, fault: str, now: dict[str, Any], *, adds: bool) -> None:
        """A row is run: its earlier cases are forgotten, or stay where it `adds`."""
        before = self.rows.get(name, {}) if adds else {}
        loads, commands = (before.get(what, []) for what in ("loads", "commands"))
        now = {**now, "loads": [*loads, now["load"]], "commands": [*commands, now["command"]]}
        self.rows[name] = {"fault": fault, **now, "cases": before.get("cases", [])}

    def add(self, name: str, case: Case) -> None:
        """Notes a case at once, so that a campaign that is stopped loses no more than the one at work."""
        self.rows[name]["cases"].append(asdict(case))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")

    def page(self, order: Iterable[str]) -> str:
        """docs/faults.md: the rows that were run, and no others."""
        names = [name for name in order if self.rows.get(name, {}).get("cases")]
        lines = [
            "# Faults that were tried\n",
            "Made by `make campaign-faults` (`tests/campaigns/faults.py`), which does to small runs what happens to",
            "large ones: a tiny model with a LoRA, fp32, two workers on CPUs, 30 steps, a checkpoint every second one.",
            "A fault is survived where the run, gone on by itself or by the same command, ended with the weights of",
            "the run that was left alone, bit for bit, and with one MLflow run that has every step once; in rows that",
            "run tests, where the test passed. Rows that are not in the table were not run.\n",
            "| row | fault | tried | survived | median s to next step | load at start | date | commit |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [self._line(name) for name in names if not _measures(self.rows[name])]
        lines += [
            "",
            "Seconds count from the fault to the first step that was not taken before: start and imports of processes,",
            "the steps since the last checkpoint, and where the same command is given again its whole start. Steps,",
            "workers and moments are random (`--seed`); several faults may hit one run, one after another. Plain",
            "ranks are forked from a process that has done their imports; commands and Ray workers do them anew.\n",
        ]
        for name in names:
            if _measures(self.rows[name]):
                lines += self._measured(name)
        lines += ["## Machine and commands\n"]
        for name in names:
            row = self.rows[name]
            versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
            commands = ", ".join(f"`{command}`" for command in row["commands"])
            lines.append(f"- {name}: {commands}; {row['cores']} cores; {versions}")
        return "\n".join(lines) + "\n"

    def _line(self, name: str) -> str:
        row = self.rows[name]
        tried, survived = (sum(case[what] for case in row["cases"]) for what in ("tried", "survived"))
        seconds = [second for case in row["cases"] for second in case["seconds"]]
        median = f"{statistics.median(seconds):.1f}" if seconds else "-"
        cells = [name, row["fault"], tried, survived, median, _span(row["loads"]), row["date"], row["commit"]]
        return "| " + " | ".join(str(cell) for cell in cells) + " |"

    def _measured(self, name: str) -> list[str]:
        row = self.rows[name]
        keys = list(row["cases"][0]["numbers"])
        table = [f"| {key} | {statistics.median(c['numbers'][key] for c in row['cases']):.1f} |" for key in keys]
        load = f"load {_span(row['loads'])} at the start"
        words = f"Medians of {len(row['cases'])} rounds; {load}, {row['date']}, {row['commit']}."
        return [f"## {row['fault'][0].upper()}{row['fault'][1:]}\n", f"{words}\n", "| | |", "|---|---|", *table, ""]


def _span(loads: list[float]) -> str:
    return f"{min(loads)}" if min(loads) == max(loads) else f"{min(loads)} to {max(loads)}"


def _measures(row: dict[str, Any]) -> bool:
    return bool(row["cases"][0]["numbers"])
