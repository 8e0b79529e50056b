"""The floor that a large model must beat: words and pairs of words, weighted, under a logistic regression.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from clsgen_dist.compare.forecasts import FloatArray, Forecast
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.store import stored_rows
from clsgen_dist.errors import DataError
from clsgen_dist.integrity import write_json
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import Row

#: Inverse strengths of the penalty that validation rows choose among.
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

#: Training rows from which a word must stand in two of them.
_MANY_ROWS = 200

#: Least probability: a label without training rows gets it.
_LEAST = 1e-6


def forecast_word_counts(config: RunConfig, folder: RunFolder, listener: Listener) -> tuple[Forecast, Forecast]:
    """Fits on the training rows, chooses the penalty on the validation rows; forecasts calibration and test rows.

    Raises:
        DataError: training rows of one label, or without words.
    """
    started = time.monotonic()
    train, validation = (
        [row for row in stored_rows(folder.rows(split)) if row.label is not None] for split in ("train", "validation")
    )
    labels = [row.label for row in train]
    if len(set(labels)) < 2:
        raise DataError(f"the train rows: {len(train)} labelled rows of {len(set(labels))} label(s), expected two")
    words = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(train) >= _MANY_ROWS else 1, max_features=200_000
    )
    try:
        counts = words.fit_transform([row.text for row in train])
    except ValueError as error:
        raise DataError(f"the train rows: no words to count ({error})") from None
    best: tuple[float, Any] | None = None
    for number, strength in enumerate(STRENGTHS, 1):
        model = LogisticRegression(C=strength, max_iter=2000)
        model.fit(counts, labels)
        loss = _loss(_log_probabilities(words, model, validation, config.num_labels), validation)
        best = (loss, model) if best is None or loss < best[0] else best
        listener(Event("fit", number, len(STRENGTHS), f"loss {loss:.3f}"))
    assert best is not None
    write_json(folder.resources, {"train_seconds": time.monotonic() - started})
    found = []
    for split in ("calibration", "test"):
        rows = list(stored_rows(folder.rows(split)))
        logits_NK = _log_probabilities(words, best[1], rows, config.num_labels)
        found.append(Forecast(rows, np.exp(logits_NK) / np.exp(logits_NK).sum(axis=1, keepdims=True), logits_NK))
    return found[0], found[1]


def _log_probabilities(words: Any, model: Any, rows: list[Row], num_labels: int) -> FloatArray:
    known_NK = np.full((len(rows), num_labels), _LEAST)
    known_NK[:, model.classes_] = model.predict_proba(words.transform([row.text for row in rows]))
    return np.asarray(np.log(np.maximum(known_NK, _LEAST)), dtype=np.float64)


def _loss(logits_NK: FloatArray, rows: list[Row]) -> float:
    return float(-np.mean([logits_NK[n, int(row.label or 0)] for n, row in enumerate(rows)]))
