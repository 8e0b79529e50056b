"""The ways from what a model says to probabilities that are compared: each fitted on some rows, applied to others.

Shape legend: N rows, K labels, F features of a text.

A method reads one source: what was said, or one column of token probabilities. Where its source has nothing for a row,
its probabilities are NaN; what then stands in for them is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.folds import deal_folds
from clsgen_dist.calibrate.scaling import MIN_LABELLED_ROWS, candidate_methods, fit_calibrator
from clsgen_dist.calibrate.simplex import floored, invert_softmax
from clsgen_dist.records import UNLABELLED
from clsgen_dist.verbalize.learned import NUM_FOLDS, fit_learned_map
from clsgen_dist.verbalize.rank import fit_rank_map

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Least probability of tokens before a logarithm is taken. They lie on no grid, so this only guards against exact 0.
TOKEN_FLOOR = 1e-6

#: The source of a method that reads what was said; other sources are columns of token probabilities.
SAID = "said"

#: Kinds of methods that scale nothing.
UNSCALED = ("base_rate", "as_said", "floored")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How methods are fitted.

    Attributes:
        floor: least said probability before a logarithm is taken.
        constant: what is added to the logarithms of a row; see `invert_softmax`.
        max_temperature: bound of temperatures.
        seed: seed of the folds within a fit.
    """

    floor: float
    constant: Literal["zero", "centred"]
    max_temperature: float
    seed: int


@dataclass(frozen=True)
class Evidence:
    """What methods may see of N rows.

    Attributes:
        sources: "said" and token columns by name, N x K each; a row of NaN where there is nothing.
        features_NF: features of the texts, or None where the texts are not known.
        feature_names: their F names.
        labels_N: number of the true label, -1 where it is unknown.
        groups_N: the group of each row.
    """

    sources: Mapping[str, FloatArray]
    features_NF: FloatArray | None
    feature_names: tuple[str, ...]
    labels_N: IntArray
    groups_N: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, rows: IntArray | BoolArray) -> Evidence:
        """Some of the rows, by number or by a mask."""
        return Evidence(
            sources={name: source_NK[rows] for name, source_NK in self.sources.items()},
            features_NF=None if self.features_NF is None else self.features_NF[rows],
            feature_names=self.feature_names,
            labels_N=self.labels_N[rows],
            groups_N=self.groups_N[rows],
        )

    def usable_N(self, source: str) -> BoolArray:
        """Rows with a label and something in the source: those to fit on, or to measure on."""
        nothing_N = np.isnan(self.sources[source]).any(axis=1)
        return np.asarray(~nothing_N & (self.labels_N != UNLABELLED), dtype=np.bool_)


@dataclass(frozen=True)
class Method:
    """One way to probabilities, before it is fitted.

    Attributes:
        name: its key in metrics.json.
        source: what it reads.
        kind: "base_rate", "as_said", "floored", "resoftmax", "learned", "rank" or a method of `fit_calibrator`, which
            then scales the inverted softmax.
    """

    name: str
    source: str
    kind: str


@dataclass(frozen=True)
class Fitted:
    """A method that was fitted.

    Attributes:
        method: what was fitted.
        num_parameters: numbers that labels chose.
        temperature: where the method is one number that divides logits.
        content: the fit as JSON.
        warnings: of the fit, in plain English.
        predict: N rows of evidence -> N x K probabilities; NaN where the source has nothing.
    """

    method: Method
    num_parameters: int
    temperature: float | None
    content: dict[str, Any]
    warnings: tuple[str, ...]
    predict: Callable[[Evidence], FloatArray]


def list_methods(evidence: Evidence, num_labels: int) -> tuple[list[Method], dict[str, str]]:
    """The methods that these rows can fit, in the order to show them; and why the others cannot: name -> sentence."""
    methods, missing = [Method("base_rate", SAID, "base_rate")], dict[str, str]()
    for source in evidence.sources:
        said = source == SAID
        own = [Method("raw" if said else source, source, "as_said")]
        if said:
            own += [Method("raw_floored", source, "floored")]
        own += [Method("resoftmax_temperature" if said else f"{source}_resoftmax_temperature", source, "resoftmax")]
        usable_N = evidence.usable_N(source)
        own_N = evidence.labels_N[usable_N]
        for kind in candidate_methods(num_labels, len(own_N)):
            name = ("invert_softmax_temperature" if kind == "temperature" else kind) if said else f"{source}_{kind}"
            own += [Method(name, source, kind)] if kind != "none" else []
        if said:
            own += [Method("rank", source, "rank"), Method("learned", source, "learned")]
        too_few, too_few_groups = say_too_few(own_N), say_too_few_groups(evidence.groups_N[usable_N])
        for method in own:
            if too_few and method.kind not in ("as_said", "floored"):
                missing[method.name] = too_few
            elif method.kind == "learned" and evidence.features_NF is None:
                missing[method.name] = "it reads features of the texts, and the answers came without texts"
            elif method.kind == "learned" and too_few_groups:
                missing[method.name] = too_few_groups
            else:
                methods.append(method)
    return methods, missing


def say_too_few(labels_N: IntArray) -> str | None:
    """Why nothing can be fitted on rows with these labels; None where something can."""
    if len(labels_N) < MIN_LABELLED_ROWS:
        return f"{len(labels_N)} labelled rows can be fitted on, expected at least {MIN_LABELLED_ROWS}"
    if (labels_N == labels_N[0]).all():
        return f"all {len(labels_N)} labelled rows that can be fitted on are of one label, expected at least two"
    return None


def say_too_few_groups(groups_N: npt.NDArray[Any]) -> str | None:
    """Why nothing can be cross-validated on rows of these groups; None where something can."""
    if len(np.unique(groups_N)) < 2:
        return f"all {len(groups_N)} labelled rows that can be fitted on are of one group, expected at least two"
    return None


def base_rate(labels_N: IntArray, num_labels: int) -> FloatArray:
    """Share of each label among labelled rows, one row more of each, so that none is 0; shape (K,)."""
    counts_K = np.bincount(labels_N[labels_N != UNLABELLED], minlength=num_labels) + 1.0
    return np.asarray(counts_K / counts_K.sum(), dtype=np.float64)


def fit_method(method: Method, evidence: Evidence, settings: Settings) -> Fitted:
    """Fit one method on the labelled rows that its source has something for.

    Raises:
        DataError: as `fit_calibrator`: too few such rows, or one label only.
    """
    source_NK = evidence.sources[method.source]
    if method.kind == "base_rate":
        rate_K = base_rate(evidence.labels_N, source_NK.shape[1])
        return Fitted(
            method,
            len(rate_K) - 1,
            None,
            {"base_rate": rate_K.tolist()},
            (),
            lambda rows: np.tile(rate_K, (len(rows), 1)),
        )
    usable_N = evidence.usable_N(method.source)
    own_NK, labels_N = source_NK[usable_N], evidence.labels_N[usable_N]
    floor = settings.floor if method.source == SAID else TOKEN_FLOOR
    bound = settings.max_temperature

    def fitted(
        count: int, temperature: float | None, content: dict[str, Any], warnings: list[str], to_probability: _Map
    ) -> Fitted:
        predict = partial(_predict, method.source, to_probability)
        return Fitted(method, count, temperature, content, tuple(warnings), predict)

    def invert(p_NK: FloatArray) -> FloatArray:
        return invert_softmax(p_NK, floor=floor, constant=settings.constant)

    inversion = {"floor": floor, "constant": settings.constant}
    if method.kind == "as_said":
        return fitted(0, None, {}, [], lambda p_NK, _: p_NK)
    if method.kind == "floored":
        return fitted(0, None, {"floor": floor}, [], lambda p_NK, _: floored(p_NK, floor))
    if method.kind == "rank":
        ranked, warnings = fit_rank_map(own_NK, labels_N, max_temperature=bound)
        return fitted(
            ranked.num_parameters, None, {"rank_map": ranked.to_json()}, warnings, lambda p_NK, _: ranked.apply(p_NK)
        )
    if method.kind == "learned":
        assert evidence.features_NF is not None, "list_methods offers this method where there are features"
        learned, warnings = fit_learned_map(
            invert(own_NK),
            evidence.features_NF[usable_N],
            labels_N,
            deal_folds(
                labels_N,
                evidence.groups_N[usable_N],
                num_folds=NUM_FOLDS,
                generator=np.random.default_rng(settings.seed),
            ),
            feature_names=evidence.feature_names,
            max_temperature=bound,
        )

        def apply_learned(p_NK: FloatArray, features_NF: FloatArray | None) -> FloatArray:
            assert features_NF is not None, "rows to apply a learned map to come with texts, as those of the fit did"
            return learned.apply(invert(p_NK), features_NF)

        content = inversion | {"learned_map": learned.to_json()}
        return fitted(learned.num_parameters, None, content, warnings, apply_learned)
    resoftmax = method.kind == "resoftmax"
    to_logits: Callable[[FloatArray], FloatArray] = (lambda p_NK: p_NK) if resoftmax else invert
    kind = "temperature" if resoftmax else method.kind
    calibrator, warnings = fit_calibrator(to_logits(own_NK), labels_N, method=kind, max_temperature=bound)
    content = ({} if resoftmax else inversion) | {"calibrator": calibrator.to_json()}
    return fitted(
        calibrator.num_parameters,
        calibrator.temperature,
        content,
        warnings,
        lambda p_NK, _: calibrator.apply(to_logits(p_NK)),
    )


_Map = Callable[[FloatArray, FloatArray | None], FloatArray]


def _predict(source: str, to_probability: _Map, rows: Evidence) -> FloatArray:
    source_NK = rows.sources[source]
    there_N = ~np.isnan(source_NK).any(axis=1)
    probability_NK = np.full_like(source_NK, np.nan)
    features_NF = None if rows.features_NF is None else rows.features_NF[there_N]
    if there_N.any():
        probability_NK[there_N] = to_probability(source_NK[there_N], features_NF)
    return probability_NK
