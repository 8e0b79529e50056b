"""Rows a second of the prediction engine beside what users would run instead, in turns on the same rows.

    python benchmarks/prediction.py [--rounds 3] [--threads 2] [--precision bf16] [--short 80] [--long 10]
    python benchmarks/prediction.py --memory

The peers come from the installed transformers: `pipeline("text-classification")` on a sequence classifier made of the
same backbone with the same head, and for explanations that pipeline followed by `generate` on a second model, which
goes on from the label that the classifier gave. Both read the same prompts, in the order of the rows ("given") and
sorted by length ("sorted"), which the pipeline leaves to its user; batch sizes are tried first, the fastest is taken.
Explanations of the untrained backbone end at a line break on both sides. Rows are those of e-SNLI (short) and PubMedQA
(long) where `--data` holds them, else vignettes. Results go to benchmarks/out/prediction.json and prediction.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import clsgen_dist.accelerator  # noqa: E402, F401 - before transformers, which looks for GPUs

# isort: split
import torch  # noqa: E402
import transformers  # noqa: E402

from benchmarks.prediction_memory import measure_memory  # noqa: E402
from benchmarks.prediction_techniques import techniques  # noqa: E402
from clsgen_dist.bundle import Bundle  # noqa: E402
from clsgen_dist.calibrate.scaling import IDENTITY  # noqa: E402
from clsgen_dist.config.sections import Task  # noqa: E402
from clsgen_dist.data.prompts import prompt_frame, split_frame, verdict  # noqa: E402
from clsgen_dist.data.synthetic import vignettes  # noqa: E402
from clsgen_dist.data.tokens import RowTokenizer  # noqa: E402
from clsgen_dist.model.build import DTYPES  # noqa: E402
from clsgen_dist.model.dual_head import DualHead  # noqa: E402
from clsgen_dist.model.heads import ClassificationHead  # noqa: E402
from clsgen_dist.predict.predictor import Predictor  # noqa: E402
from clsgen_dist.records import Row  # noqa: E402

CPU = torch.device("cpu")
TASK = Task(question="Does the text speak for it, or against it?", labels=["against", "for"])


def load_rows(data: Path, num_short: int, num_long: int) -> tuple[list[Row], list[Row], str]:
    """Short and long rows, and where they come from."""
    files = (data / "esnli_binary_test.jsonl", data / "pubmedqa_test.jsonl")
    if not all(file.is_file() for file in files):
        made = list(vignettes(num_short + num_long, seed=0, split="test"))
        whole = [Row(id=f"long-{n}", text=" ".join(row.text for row in made[n : n + 6])) for n in range(num_long)]
        return made[num_long:], whole, "vignettes"
    found = []
    for file, number in zip(files, (num_short, num_long), strict=True):
        lines = file.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in random.Random(0).sample(lines, min(number, len(lines)))]
        found.append([Row(id=str(record["id"]), text=record["text"]) for record in records])
    return found[0], found[1], "e-SNLI and PubMedQA"


class Sides:
    """Both sides, from one set of weights."""

    def __init__(self, backbone: str, precision: str, budget: int, num_new: int) -> None:
        options: dict[str, Any] = {"dtype": DTYPES[precision], "attn_implementation": "sdpa"}
        fast = transformers.AutoTokenizer.from_pretrained(backbone)
        causal_lm = transformers.AutoModelForCausalLM.from_pretrained(backbone, **options)
        head = ClassificationHead(causal_lm.config.get_text_config().hidden_size, 2, seed=0)
        with torch.no_grad():
            head.weight *= 10
        head = head.to(DTYPES[precision])
        tokenizer = RowTokenizer(fast, TASK, max_prompt_tokens=1024, max_explanation_tokens=256)
        self.end = fast("\n", add_special_tokens=False)["input_ids"][-1]
        tokenizer.eos = self.end
        model = DualHead(causal_lm, head).eval().requires_grad_(False)
        bundle = Bundle(Path(), {}, TASK, model, tokenizer, IDENTITY, 0.5)
        self.ours = Predictor(bundle, budget, num_new, CPU)
        self.num_new = num_new
        self._before, self._after = split_frame(prompt_frame(TASK))
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(backbone, padding_side="left")
        classifier = transformers.AutoModelForSequenceClassification.from_pretrained(
            backbone, num_labels=2, id2label=dict(enumerate(TASK.labels)), **options
        )
        classifier.config.pad_token_id = self._tokenizer.pad_token_id
        with torch.no_grad():
            classifier.score.weight.copy_(head.weight)
        self._pipeline = transformers.pipeline(
            "text-classification", model=classifier.eval(), tokenizer=self._tokenizer, device=-1
        )
        self._writer = transformers.AutoModelForCausalLM.from_pretrained(backbone, **options).eval()

    def prompts(self, rows: list[Row], *, is_sorted: bool) -> list[str]:
        found = [self._before + row.text + self._after for row in rows]
        return sorted(found, key=len, reverse=True) if is_sorted else found

    def classify(self, prompts: list[str], batch_size: int) -> list[str]:
        return [answer["label"] for answer in self._pipeline(prompts, batch_size=batch_size)]

    def classify_and_write(self, prompts: list[str], batch_size: int, write_batch: int) -> list[str]:
        labels = self.classify(prompts, batch_size)
        texts = [f"{p} {verdict(TASK, TASK.labels.index(name))}" for p, name in zip(prompts, labels, strict=True)]
        written = []
        for first in range(0, len(texts), write_batch):
            batch = self._tokenizer(texts[first : first + write_batch], return_tensors="pt", padding=True)
            ids = self._writer.generate(
                **batch,
                do_sample=False,
                max_new_tokens=self.num_new - 2,  # of ours the verdict takes two or three
                eos_token_id=self.end,
                pad_token_id=self._tokenizer.pad_token_id,
            )
            written += self._tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [words.strip() for words in written]


def in_turns(sides: dict[str, Callable[[], object]], num_rows: int, rounds: int) -> dict[str, list[float]]:
    """Rows a second of each side, round by round: A B A B."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            rates[name].append(num_rows / (time.perf_counter() - start))
    return rates


def fastest(run: Callable[[int], object], sizes: tuple[int, ...]) -> int:
    """The batch size at which a peer is fastest, of one try each."""
    seconds = {}
    for size in sizes if len(sizes) > 1 else ():
        start = time.perf_counter()
        run(size)
        seconds[size] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__, default=sizes[0])


def compare(sides: Sides, rows: list[Row], rounds: int, sizes: tuple[int, ...], *, explain: bool) -> dict[str, Any]:
    """One line of the table."""
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: sides.ours.predict(rows, num_explained=None if explain else 0)
    }
    batch_sizes = {}
    for name in ("given", "sorted"):
        prompts = sides.prompts(rows, is_sorted=name == "sorted")
        few = prompts[:: max(1, len(prompts) // 16)]
        size = fastest(lambda size, few=few: sides.classify(few, size), sizes)  # type: ignore[misc]
        batch_sizes[name] = size
        runs[name] = lambda prompts=prompts, size=size: (  # type: ignore[misc]
            sides.classify_and_write(prompts, size, 32) if explain else sides.classify(prompts, size)
        )
    rates = in_turns(runs, len(rows), rounds)
    ratios = {
        name: [ours / theirs for ours, theirs in zip(rates["ours"], rates[name], strict=True)] for name in batch_sizes
    }
    return {
        "num_rows": len(rows),
        "rows_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "rounds": rates,
        "ratio": {n: {"median": statistics.median(r), "low": min(r), "high": max(r)} for n, r in ratios.items()},
        "batch_size": batch_sizes,
        "agreement": agreement(sides, rows, explain=explain),
    }


def agreement(sides: Sides, rows: list[Row], *, explain: bool) -> dict[str, float]:
    """Shares of some rows on which both sides say the same: labels, and words where they were written."""
    some = rows[:16]
    ours = sides.ours.predict(some, num_explained=None if explain else 0)
    prompts = sides.prompts(some, is_sorted=False)
    labels = sides.classify(prompts, 8)
    found = {"labels": statistics.mean(p.predicted == name for p, name in zip(ours, labels, strict=True))}
    if explain:
        words = sides.classify_and_write(prompts, 8, 8)
        same = [str(p.explanation)[:40] == text[:40] for p, text in zip(ours, words, strict=True)]
        found["first_40_characters"] = statistics.mean(same)
        found["tokens_a_row"] = statistics.mean(
            len(ids) for ids in sides.ours.bundle.tokenizer.encode_words([str(p.explanation) for p in ours])
        )
    return found


def table(result: dict[str, Any]) -> str:
    lines = [
        "| rows | what | ours / peer as rows come | ours / peer sorted by length | batch size of the peers |",
        "|---|---|---|---|---|",
    ]
    for name, found in result["comparisons"].items():
        cells = [
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            for ratio in (found["ratio"]["given"], found["ratio"]["sorted"])
        ]
        what, _, rows = name.partition(", ")
        sizes = ", ".join(map(str, found["batch_size"].values()))
        lines.append(f"| {rows}, {found['num_rows']} | {what} | {cells[0]} | {cells[1]} | {sizes} |")
    lines += ["", "| technique switched off | time, times ours (low to high) |", "|---|---|"]
    lines += [
        f"| {name} | {found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f}) |"
        for name, found in result["techniques"].items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=str(ROOT / "models" / "gemma3-270m"))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--short", type=int, default=80)
    parser.add_argument("--long", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=40, help="tokens of verdict and explanation, at most")
    parser.add_argument("--token-budget", type=int, default=4096)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32], help="of the peers, to choose from")
    parser.add_argument("--memory", action="store_true", help="peak memory by number of rows, and nothing else")
    asked = parser.parse_args()
    out = ROOT / "benchmarks" / "out"
    out.mkdir(parents=True, exist_ok=True)
    if asked.memory:
        found = measure_memory()
        (out / "prediction_memory.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(found, indent=2))
        return
    torch.set_num_threads(asked.threads)
    transformers.logging.set_verbosity_error()
    load_before = os.getloadavg()
    short, long, source = load_rows(asked.data, asked.short, asked.long)
    mixed = random.Random(1).sample(short + long, len(short) + len(long))
    sides = Sides(asked.backbone, asked.precision, asked.token_budget, asked.tokens)
    sides.ours.predict(mixed[:8], num_explained=2)  # warm
    sides.classify_and_write(sides.prompts(mixed[:4], is_sorted=False), 2, 2)
    comparisons = {}
    for name, rows, explain in (
        ("probability, mixed", mixed, False),
        ("probability, short", short, False),
        ("probability, long", long, False),
        ("probability and explanation, mixed", mixed[: len(mixed) // 2], True),
    ):
        comparisons[name] = compare(sides, rows, asked.rounds, tuple(asked.batch_sizes), explain=explain)
        print(name, {n: round(r["median"], 2) for n, r in comparisons[name]["ratio"].items()}, flush=True)
    result = {
        "rows": source,
        "settings": {name: str(value) for name, value in vars(asked).items()},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average": {"before": load_before, "after": None},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "comparisons": comparisons,
        "techniques": techniques(replace(sides.ours), mixed, short, asked.rounds, in_turns),
    }
    result["load_average"]["after"] = os.getloadavg()
    (out / "prediction.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (out / "prediction.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
