"""Does choosing a calibrator cost anything? Selection against every single calibrator, where the truth is known.

    python benchmarks/calibrator_selection.py [--seeds 20] [--rows 50 200 1000] [--pool 2000] [--test-rows 4000]
                                              [--bundle runs/demo/bundle ...]

Vignettes come with the probability that drew their label. Seven heads are wrong about it in different ways, and those
of trained bundles in theirs. Every seed has vignettes and noise of its own; its calibration rows, the pool, are cut
into as many sets as it holds, since one set of 50 rows says next to nothing. On each set, each single method and
`select_calibrator` are fitted. The negative log-likelihood on test rows is the expected one, over the true
probability, so that no test label adds noise.
Prints tables in Markdown; the figures also go to benchmarks/out/calibrator_selection.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import logit, xlogy
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator, candidate_methods, fit_calibrator  # noqa: E402
from clsgen_dist.calibrate.selection import select_calibrator  # noqa: E402
from clsgen_dist.data.synthetic import vignettes  # noqa: E402
from clsgen_dist.records import Row  # noqa: E402

FloatArray = npt.NDArray[np.float64]

MAX_TEMPERATURE = 100.0
TRAIN_ROWS = 1500
#: Largest excess over the best single calibrator that the mean over seeds may have, nats.
LIMIT = 0.005
#: Columns that are no single method.
SELECTION, BEFORE, AFTER = "selection", "mean abs(p - true p) before", "after"
#: Probabilities of 0 and 1 would have infinite logits.
LEAST = 1e-6

SAID = {
    "noisy": "logit of the truth plus noise (standard deviation 0.5): good as it is",
    "overconfident": "the noisy one times 2.5",
    "timid": "the noisy one times 0.4",
    "biased": "the noisy one plus 1.5",
    "bag of words": f"logistic regression on word pairs of {TRAIN_ROWS:,} rows, hardly regularised",
    "asymmetric": "the noisy one, doubled above 0 and halved below: no sigmoid",
    "quadratic": "the noisy one, 1.5 times squared above 0 and times 0.6 below, plus 0.5: log-odds far beyond 100",
}


@dataclass(frozen=True)
class Split:
    """Rows of one split.

    Attributes:
        log_odds: log-odds of each row by each head.
        labels_N: 0 or 1.
        truth_N: probability of label 1 that drew the label.
    """

    log_odds: dict[str, FloatArray]
    labels_N: npt.NDArray[np.int64]
    truth_N: FloatArray


def load_splits(num_calibration: int, num_test: int, seed: int, bundles: Sequence[Path] = ()) -> tuple[Split, Split]:
    """Calibration and test rows, with what each head says of them.

    Bundles must be of vignettes: `make demo` trains one, on other vignettes than those of these two splits.
    """
    rows = {"train": list(vignettes(TRAIN_ROWS, seed=seed, split="train"))}
    rows["calibration"] = list(vignettes(num_calibration, seed=seed, split="calibration"))
    rows["test"] = list(vignettes(num_test, seed=seed, split="test"))
    words = CountVectorizer(ngram_range=(1, 2), min_df=2)
    model = LogisticRegression(C=10, max_iter=2000).fit(
        words.fit_transform([row.text for row in rows["train"]]), [row.label for row in rows["train"]]
    )
    generator = np.random.default_rng(seed)
    splits = []
    for name in ("calibration", "test"):
        truth_N = np.array([row.true_probability for row in rows[name]])
        noisy_N = logit(truth_N.clip(LEAST, 1 - LEAST)) + 0.5 * generator.normal(size=len(truth_N))
        said = {
            "noisy": noisy_N,
            "overconfident": 2.5 * noisy_N,
            "timid": 0.4 * noisy_N,
            "biased": noisy_N + 1.5,
            "bag of words": model.decision_function(words.transform([row.text for row in rows[name]])),
            "asymmetric": np.where(noisy_N > 0, 2 * noisy_N, 0.5 * noisy_N),
            "quadratic": np.where(noisy_N > 0, 1.5 * noisy_N**2, 0.6 * noisy_N) + 0.5,
        }
        said |= {f"bundle {path.parent.name}": bundle_log_odds(path, rows[name]) for path in bundles}
        splits.append(Split(said, np.array([row.label for row in rows[name]], dtype=np.int64), truth_N))
    return splits[0], splits[1]


def bundle_log_odds(folder: Path, rows: list[Row]) -> FloatArray:
    """What the head of a trained bundle says of rows, uncalibrated; shape (N,)."""
    import torch

    from clsgen_dist.bundle import load_bundle
    from clsgen_dist.predict.predictor import Predictor

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = Predictor(load_bundle(folder, device=device, with_decision=False), 8192, 1, device)
    logits_N2 = np.array([prediction.logits for prediction in predictor.predict(rows, num_explained=0)])
    return np.asarray(logits_N2[:, 1] - logits_N2[:, 0], dtype=np.float64)


def expected_nll(p_N2: FloatArray, truth_N: FloatArray) -> float:
    """Negative log-likelihood over all labels that the truth could have drawn, nats a row."""
    p_N2 = np.maximum(p_N2, np.finfo(np.float64).tiny)
    return float(-np.mean(xlogy(1 - truth_N, p_N2[:, 0]) + xlogy(truth_N, p_N2[:, 1])))


def logits_of(log_odds_N: FloatArray) -> FloatArray:
    return np.stack([np.zeros_like(log_odds_N), log_odds_N], axis=1)


def compare(head: str, num_rows: int, seed: int, calibration: Split, test: Split) -> dict[str, float]:
    """Expected NLL of each method and of the selection, and the error of probabilities: means over the pool's sets."""
    test_logits_N2 = logits_of(test.log_odds[head])
    raw_p_N = IDENTITY.apply(test_logits_N2)[:, 1]
    found: dict[str, list[float]] = {BEFORE: [float(np.abs(raw_p_N - test.truth_N).mean())]}

    def judge(name: str, calibrator: Calibrator) -> FloatArray:
        p_N2 = calibrator.apply(test_logits_N2)
        found.setdefault(name, []).append(expected_nll(p_N2, test.truth_N))
        return np.asarray(p_N2[:, 1])

    for start in range(0, len(calibration.labels_N) - num_rows + 1, num_rows):
        part = slice(start, start + num_rows)
        logits_N2, labels_N = logits_of(calibration.log_odds[head][part]), calibration.labels_N[part]
        for method in candidate_methods(2, num_rows):
            judge(method, fit_calibrator(logits_N2, labels_N, method=method, max_temperature=MAX_TEMPERATURE)[0])
        selection = select_calibrator(logits_N2, labels_N, max_temperature=MAX_TEMPERATURE, seed=seed)
        p_N = judge(SELECTION, selection.calibrator)
        found.setdefault(AFTER, []).append(float(np.abs(p_N - test.truth_N).mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def excess_of(result: dict) -> FloatArray:
    """Of the selection over the single method that is best in the mean, one a seed."""
    singles = {name: values for name, values in result["means"].items() if name not in (SELECTION, BEFORE, AFTER)}
    best = min(singles, key=lambda name: np.mean(singles[name]))
    return np.array(result["means"][SELECTION]) - np.array(singles[best])


def table(results: list[dict]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result["means"]))
    methods = [*(name for name in names if name not in (SELECTION, BEFORE, AFTER)), SELECTION]
    heads = [*methods, "excess", BEFORE, AFTER]
    lines = ["| head | rows | " + " | ".join(heads) + " |", "|---|--:|" + "--:|" * len(heads)]
    for result in results:
        mean = {name: np.mean(values) for name, values in result["means"].items()}
        excess_S = excess_of(result)
        cells = [f"{mean[name]:.4f}" if name in mean else "" for name in methods]
        mark = "" if excess_S.mean() <= LIMIT else " **(over)**"
        cells.append(f"{excess_S.mean():+.4f} ± {excess_S.std(ddof=1) / len(excess_S) ** 0.5:.4f}{mark}")
        cells += [f"{mean[name]:.4f}" for name in (BEFORE, AFTER)]
        lines.append(f"| {result['head']} | {result['num_rows']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--pool", type=int, default=2000, help="calibration rows of a seed, cut into sets")
    parser.add_argument("--test-rows", type=int, default=4000, help="of a seed")
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="of vignettes, as runs/demo/bundle")
    options = parser.parse_args()
    if options.seeds < 2 or options.pool < max(options.rows):
        parser.error("expected two seeds or more, and a pool of no fewer rows than a set has")
    means: dict[tuple[int, str], dict[str, list[float]]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        calibration, test = load_splits(options.pool, options.test_rows, seed, options.bundle)
        for num_rows in options.rows:
            for head in calibration.log_odds:
                own = means.setdefault((num_rows, head), {})
                for name, value in compare(head, num_rows, seed, calibration, test).items():
                    own.setdefault(name, []).append(value)
        print(f"seed {seed}", file=sys.stderr, flush=True)
    results = [{"head": head, "num_rows": num_rows, "means": own} for (num_rows, head), own in means.items()]
    for head, words in SAID.items():
        print(f"- {head}: {words}")
    print(f"\nExpected NLL, nats a row, mean over {options.seeds} seeds with a pool of {options.pool:,} rows each.\n")
    print(table(results))
    out = ROOT / "benchmarks" / "out" / "calibrator_selection.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"options": vars(options), "results": results}, indent=1, default=str) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
