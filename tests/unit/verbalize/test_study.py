"""The study: re-softmax is seen to be worse, failures never vanish, nothing is chosen by a calibration error."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.calibrate.selection import NUM_STANDARD_ERRORS
from clsgen_dist.calibrate.simplex import default_floor, floored, invert_softmax
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.evaluate.metrics import probability_metrics
from clsgen_dist.records import UNLABELLED
from clsgen_dist.verbalize.answers import Answers, name_groups
from clsgen_dist.verbalize.choice import choose_method
from clsgen_dist.verbalize.methods import Evidence, Method, Settings, fit_method
from clsgen_dist.verbalize.parsing import Said
from clsgen_dist.verbalize.study import Study
from clsgen_dist.verbalize.table import tabulate_floors, tabulate_thresholds

Make = Callable[..., Answers]
Run = Callable[..., Study]

CONTRACT = ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label")
REFUSAL = Said(None, None, "refusal", None)


def methods_of(study: Study) -> dict[str, dict[str, float]]:
    return {name: study.metrics[name] for name in study.metrics["sources"] if name in study.metrics}


def test_every_method_has_the_metrics_of_the_contract(two_labels: Study, three_labels: Study) -> None:
    common = ["base_rate", "raw", "raw_floored", "resoftmax_temperature", "invert_softmax_temperature"]
    assert list(methods_of(two_labels)) == [*common, "platt", "rank", "learned"]
    assert list(methods_of(three_labels)) == [*common, "vector", "rank"]
    for study in (two_labels, three_labels):
        assert set(study.metrics["all_rows"]) == set(methods_of(study))
        for entry in [*methods_of(study).values(), *study.metrics["all_rows"].values()]:
            assert set(CONTRACT) <= set(entry)
            for name in (*CONTRACT, "mce", "ece_classwise"):
                low, high = entry[f"{name}_ci"]
                assert low <= high
            assert entry["ece_null_ci"][0] <= entry["ece_null"] <= entry["ece_null_ci"][1]
        scaled = {name for name, entry in methods_of(study).items() if "temperature" in entry}
        assert scaled == {"resoftmax_temperature", "invert_softmax_temperature"}
        assert json.loads(json.dumps([study.metrics, study.fits], allow_nan=False)) is not None


def test_metrics_are_those_of_the_probabilities(two_labels: Study) -> None:
    test = two_labels.test
    for name, entry in methods_of(two_labels).items():
        p_NK = two_labels.probabilities[name][test.parsed_N]
        expected = probability_metrics(p_NK, test.labels_N[test.parsed_N], p_NK.argmax(axis=1), num_bins=10)
        assert {key: entry[key] for key in CONTRACT} == pytest.approx({key: expected[key] for key in CONTRACT})


@pytest.mark.parametrize("name", ["two_labels", "three_labels"])
def test_inverted_softmax_beats_re_softmax_and_what_was_said(name: str, request: pytest.FixtureRequest) -> None:
    metrics = request.getfixturevalue(name).metrics
    nll = {method: entry["nll"] for method, entry in methods_of(request.getfixturevalue(name)).items()}
    assert nll["invert_softmax_temperature"] < nll["resoftmax_temperature"]
    assert nll["invert_softmax_temperature"] < nll["raw_floored"] < nll["raw"]
    assert metrics["invert_softmax_temperature"]["temperature"] > 1.3
    assert metrics["resoftmax_temperature"]["temperature"] < 1


def test_a_temperature_of_two_labels_divides_the_log_odds(two_labels: Study) -> None:
    test, metrics = two_labels.test, two_labels.metrics
    p_N = floored(test.said_NK[test.parsed_N], metrics["floor"])[:, 1]
    expected = expit(logit(p_N) / metrics["invert_softmax_temperature"]["temperature"])
    found = two_labels.probabilities["invert_softmax_temperature"][test.parsed_N, 1]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    for name in ("raw", "raw_floored", "resoftmax_temperature", "platt", "rank"):
        assert metrics[name]["auroc"] == pytest.approx(metrics["invert_softmax_temperature"]["auroc"], abs=0.004)
    assert metrics["raw"]["auroc"] == metrics["rank"]["auroc"]


def test_raw_is_as_said_and_pays_for_its_zeros(two_labels: Study) -> None:
    test = two_labels.test
    np.testing.assert_array_equal(two_labels.probabilities["raw"], test.said_NK)
    own_N = test.said_NK[np.arange(len(test)), test.labels_N]
    assert (own_N == 0).any()
    assert two_labels.metrics["raw"]["nll"] > 708 * (own_N == 0).sum() / test.parsed_N.sum()


def test_failures_count_and_get_the_base_rate(two_labels: Study) -> None:
    test, metrics = two_labels.test, two_labels.metrics
    num_failed = int((~test.parsed_N).sum())
    assert 0 < num_failed == sum(metrics["failures"].values())
    assert set(metrics["failures"]) == {"refusal", "bad_sum"}
    assert metrics["parse_rate"] == pytest.approx(1 - num_failed / len(test))
    assert metrics["raw"]["num_rows"] == len(test) - num_failed
    assert metrics["all_rows"]["raw"]["num_rows"] == len(test)
    p_NK = two_labels.probabilities["invert_softmax_temperature"].copy()
    assert np.isnan(p_NK[~test.parsed_N]).all()
    p_NK[~test.parsed_N] = metrics["label_shares"]
    nll = -np.log(p_NK[np.arange(len(test)), test.labels_N]).mean()
    assert metrics["all_rows"]["invert_softmax_temperature"]["nll"] == pytest.approx(nll)


def test_the_base_rate_is_that_of_the_rows_to_fit_on(make_answers: Make, run_study: Run) -> None:
    fit = make_answers(100, name="a")
    keep_N = (fit.labels_N == 0) | (np.arange(100) % 4 == 0)
    found = run_study(fit.take(keep_N), make_answers(100, name="b"))
    counts = np.bincount(fit.labels_N[keep_N], minlength=2) + 1
    assert found.metrics["label_shares"] == pytest.approx(counts / counts.sum())


def test_without_failures_all_rows_are_the_parsed_rows(three_labels: Study) -> None:
    for name, entry in methods_of(three_labels).items():
        assert three_labels.metrics["all_rows"][name] == entry


def test_rows_without_a_label_count_as_answers_only(make_answers: Make, run_study: Run) -> None:
    fit, test = make_answers(100, name="a"), make_answers(120, name="b")
    blank_N = np.arange(120) >= 100
    blanked = replace(test, labels_N=np.where(blank_N, UNLABELLED, test.labels_N))
    found, plain = run_study(fit, blanked), run_study(fit, test.take(~blank_N))
    assert found.metrics["num_rows"] == 120
    assert found.metrics["num_labelled_rows"] == 100
    assert found.metrics["platt"] == plain.metrics["platt"]


def test_the_same_input_gives_the_same_study_whatever_the_constant(make_answers: Make, run_study: Run) -> None:
    rows = (make_answers(120, name="a"), make_answers(100, name="b"))
    first = run_study(*rows)
    assert run_study(*rows).metrics == first.metrics
    zero = run_study(*rows, constant="zero")
    for name in ("invert_softmax_temperature", "platt"):
        np.testing.assert_allclose(zero.probabilities[name], first.probabilities[name], atol=1e-7)


def test_one_said_row_that_sums_to_99_percent_changes_nothing_in_the_others(make_answers: Make, run_study: Run) -> None:
    fit, test = make_answers(120, name="a", failing=0.0), make_answers(100, name="b", failing=0.0)
    first = np.array(test.said[0].probabilities)
    odd = replace(
        test, said=(Said(tuple((0.99 * first / (0.99 * first).sum()).tolist()), 0.99, None, "lines"), *test.said[1:])
    )
    one, other = run_study(fit, test), run_study(fit, odd)
    for name, p_NK in one.probabilities.items():
        np.testing.assert_array_equal(other.probabilities[name][1:], p_NK[1:])
        np.testing.assert_allclose(other.probabilities[name][0], p_NK[0], atol=1e-12)


def test_fits_hold_what_it_takes_to_apply_them(two_labels: Study) -> None:
    fits, test = two_labels.fits, two_labels.test
    assert fits["floor"] == two_labels.metrics["floor"]
    assert len(fits["rows_sha256"]) == 64
    said_NK = test.said_NK[test.parsed_N]
    for name in ("invert_softmax_temperature", "platt", "resoftmax_temperature"):
        content = fits["methods"][name]
        calibrator = Calibrator.from_json(content["calibrator"])
        logits_NK = (
            said_NK
            if name.startswith("resoftmax")
            else invert_softmax(said_NK, floor=content["floor"], constant=content["constant"])
        )
        np.testing.assert_allclose(calibrator.apply(logits_NK), two_labels.probabilities[name][test.parsed_N])


def test_the_floor_is_from_the_fit_shown_and_settable(make_answers: Make, run_study: Run) -> None:
    fit, test = make_answers(120, name="a"), make_answers(100, name="b")
    default = run_study(fit, test)
    assert default.metrics["floor"] == pytest.approx(default_floor(fit.said_NK[fit.parsed_N]))
    assert default.metrics["is_floor_default"]
    assert run_study(fit, test, floor=0.002, is_floor_default=True).metrics["is_floor_default"]
    chosen = run_study(fit, test, floor=0.002, origin={"model": "m"})
    assert chosen.metrics["floor"] == chosen.fits["methods"]["raw_floored"]["floor"] == 0.002
    assert chosen.fits["origin"] == {"model": "m"}
    lines = chosen.metrics["floors"]
    assert [line["floor"] for line in lines] == sorted(line["floor"] for line in lines)
    used = [line for line in lines if line["is_used"]]
    assert [line["temperature"] for line in used] == [chosen.metrics["invert_softmax_temperature"]["temperature"]]
    assert used[0]["nll_test"] == pytest.approx(chosen.metrics["invert_softmax_temperature"]["nll"])
    assert lines[0]["temperature"] > 1.5 * used[0]["temperature"]
    with pytest.raises(ConfigError, match="floor"):
        run_study(fit, test, floor=0.5)


def test_tokens_speak_where_answers_do_not(mostly_silent: Study) -> None:
    metrics = mostly_silent.metrics
    assert metrics["parse_rate"] < 0.08
    for name in ("label_tokens", "label_tokens_temperature", "label_tokens_platt"):
        assert metrics[name]["num_rows"] == metrics["num_labelled_rows"] == 300
        assert metrics["sources"][name] == "label_tokens"
    assert metrics["label_tokens_temperature"]["nll"] < metrics["label_tokens"]["nll"]
    for name in ("resoftmax_temperature", "invert_softmax_temperature", "platt", "rank", "learned"):
        assert "expected at least 20" in metrics["unavailable"][name]
        assert name not in metrics
    assert metrics["all_rows"]["raw"]["num_rows"] == 300
    assert metrics["chosen"].startswith("label_tokens")
    assert (metrics["before"], metrics["floors"]) == ("label_tokens", [])


def test_with_no_answer_at_all_tokens_still_speak(make_answers: Make, run_study: Run) -> None:
    fit, test = (make_answers(60, name=name, failing=1.0, tokens=True) for name in "ab")
    metrics = run_study(fit, test).metrics
    assert (metrics["parse_rate"], metrics["num_distinct_values"], metrics["floor"]) == (0.0, 0, None)
    assert "labelled rows can be measured" in metrics["unavailable"]["raw"]
    assert metrics["label_tokens_temperature"]["num_rows"] == 60


def test_too_few_understood_answers_say_how_few_and_why(make_answers: Make, run_study: Run) -> None:
    fit, test = make_answers(60, name="a", failing=0.8), make_answers(60, name="b")
    with pytest.raises(
        DataError, match=r"a\.jsonl: of 60 .*%.*most frequent failure is refusal \(\d+ answers.*least 20"
    ):
        run_study(fit, test)
    with pytest.raises(DataError, match=r"b\.jsonl: .*0\.0 %.*labelled rows can be measured"):
        run_study(make_answers(60, name="a"), make_answers(60, name="b", failing=1.0))


def test_one_label_only_is_refused(make_answers: Make, run_study: Run) -> None:
    fit, test = make_answers(60, name="a"), make_answers(60, name="b")
    with pytest.raises(DataError, match=r"a\.jsonl: .*of one label"):
        run_study(replace(fit, labels_N=np.zeros(60, dtype=np.int64)), test)
    with pytest.raises(DataError, match=r"b\.jsonl: .*at least two labels"):
        run_study(fit, replace(test, labels_N=np.ones(60, dtype=np.int64)))
    with pytest.raises(DataError, match=r"b\.jsonl: .*of one group"):
        run_study(fit, replace(test, groups_N=name_groups(test.ids, ["g"] * 60)))


def test_shared_rows_are_refused(make_answers: Make, run_study: Run) -> None:
    answers = make_answers(60)
    with pytest.raises(DataError, match="share 60 ids"):
        run_study(answers, answers)


def test_separated_rows_are_warned_of(make_answers: Make, run_study: Run) -> None:
    fit, test = make_answers(60, name="a", failing=0.0), make_answers(60, name="b")
    sure = tuple(Said((0.9, 0.1) if y == 0 else (0.1, 0.9), 1.0, None, "json") for y in fit.labels_N)
    warnings = run_study(replace(fit, said=sure), test).metrics["warnings"]
    assert any(w.startswith("invert_softmax_temperature: ") and "separates" in w for w in warnings)


def test_beta_and_isotonic_need_a_thousand_rows(make_answers: Make, run_study: Run) -> None:
    found = run_study(make_answers(1000, name="a", failing=0.0), make_answers(60, name="b"), num_bootstrap=5)
    assert {"beta", "isotonic"} <= set(methods_of(found))


def test_the_choice_is_by_held_out_likelihood_and_fewer_numbers(two_labels: Study) -> None:
    candidates = two_labels.metrics["choice"]
    assert not {"raw", "resoftmax_temperature"} & {c["name"] for c in candidates}
    assert [c["mean_nll"] for c in candidates] == sorted(c["mean_nll"] for c in candidates)
    chosen = next(c for c in candidates if c["name"] == two_labels.metrics["chosen"])
    close = [c for c in candidates if c["above_best"] <= NUM_STANDARD_ERRORS * c["standard_error"]]
    assert chosen in close
    assert chosen["num_parameters"] == min(c["num_parameters"] for c in close)
    # The simulated model is too sure and leans toward the last label: one number cannot mend both.
    assert chosen["name"] in ("platt", "rank", "learned")


def test_answers_without_any_sense_leave_the_base_rate(make_answers: Make, run_study: Run) -> None:
    fit, test = make_answers(300, name="a"), make_answers(100, name="b")
    drawn_N = (np.random.default_rng(0).random(300) < 0.2).astype(np.int64)
    assert run_study(replace(fit, labels_N=drawn_N), test).metrics["chosen"] == "base_rate"


def test_answers_that_are_right_are_left_alone(make_answers: Make, run_study: Run) -> None:
    fit, test = (make_answers(n, name=c, sharpness=1.0, bias=0.0) for n, c in ((1200, "a"), (100, "b")))
    metrics = run_study(fit, test).metrics
    assert metrics["chosen"] == "raw_floored"
    assert (metrics["before"], metrics["after"]) == ("raw", "invert_softmax_temperature")


def test_a_failure_costs_every_method_the_same_in_the_choice(make_answers: Make) -> None:
    answers = make_answers(1000, failing=0.5)
    evidence = Evidence({"said": answers.said_NK}, None, (), answers.labels_N, answers.groups_N)
    settings = Settings(floor=0.01, constant="zero", max_temperature=20.0, seed=0)
    methods = [Method("a", "said", "floored"), Method("b", "said", "temperature"), Method("c", "said", "as_said")]
    fits = [fit_method(method, evidence, settings) for method in methods]
    choice = choose_method(methods, [fit.num_parameters for fit in fits], evidence, settings)
    assert {c.name for c in choice.candidates} == {"a", "b"}
    parsed = evidence.take(answers.parsed_N)
    alone = choose_method(methods, [0, 1, 0], parsed, settings)
    assert choice.name == alone.name == "b"
    # Half of the rows cost both the same, so the difference halves.
    gap, whole = (c.candidates[-1].above_best for c in (choice, alone))
    assert gap == pytest.approx(whole * answers.parse_rate, rel=0.25)


def test_too_few_rows_to_cross_validate_choose_nothing(make_answers: Make, run_study: Run) -> None:
    metrics = run_study(make_answers(22, name="a", failing=0.0), make_answers(60, name="b")).metrics
    assert (metrics["chosen"], metrics["choice"]) == (None, [])
    assert metrics["invert_softmax_temperature"]["num_rows"] > 0
    assert (metrics["before"], metrics["after"]) == ("raw", "invert_softmax_temperature")


def test_rows_to_fit_on_of_one_group_choose_nothing_and_leave_the_learned_map_out(
    make_answers: Make, run_study: Run
) -> None:
    fit, test = (make_answers(60, name=name, texts=True, tokens=True) for name in "ab")
    metrics = run_study(replace(fit, groups_N=name_groups(fit.ids, ["g"] * 60)), test).metrics
    assert (metrics["chosen"], metrics["choice"]) == (None, [])
    assert metrics["unavailable"]["learned"].endswith("are of one group, expected at least two")
    assert metrics["invert_softmax_temperature"]["num_rows"] > 0


def test_where_folds_leave_one_group_the_learned_map_is_not_chosen(make_answers: Make, run_study: Run) -> None:
    fit, test = (make_answers(100, name=name, texts=True) for name in "ab")
    metrics = run_study(replace(fit, groups_N=name_groups(fit.ids, [str(i // 50) for i in range(100)])), test).metrics
    assert "learned" in metrics
    assert "learned" not in {candidate["name"] for candidate in metrics["choice"]}
    assert "invert_softmax_temperature" in {candidate["name"] for candidate in metrics["choice"]}


def test_the_standard_error_counts_groups() -> None:
    """Two groups whose sums differ by d: d / N, and not d / N / sqrt(2)."""
    # All rows say 0.9; of the first group 30 of 40 are right, of the second 26, as often for either label.
    right_N = np.concatenate([np.arange(20) < 15, np.arange(20) < 15, np.arange(20) < 13, np.arange(20) < 13])
    says_yes_N = np.tile(np.repeat([False, True], 20), 2)
    said_NK = np.where(says_yes_N[:, None], [0.1, 0.9], [0.9, 0.1])
    labels_N = np.where(right_N, says_yes_N, ~says_yes_N).astype(np.int64)
    labels_N[[15, 35, 55, 75]] = [1, 0, 1, 0]
    evidence = Evidence({"said": said_NK}, None, (), labels_N, np.repeat([0, 1], 40))
    settings = Settings(floor=0.01, constant="zero", max_temperature=1.0001, seed=0)
    methods = [Method("a", "said", "floored"), Method("b", "said", "base_rate"), Method("c", "said", "temperature")]
    best, *others = choose_method(methods, [0, 1, 1], evidence, settings).candidates
    assert (best.name, best.mean_nll) == ("b", pytest.approx(np.log(2)))
    # Four more rows are wrong, each of which costs log 0.9 - log 0.1; the base rate costs all rows the same.
    assert [c.standard_error for c in others] == [pytest.approx(4 * np.log(9) / 80, rel=1e-3)] * 2


def test_floors_of_many_labels_stay_below_an_even_share() -> None:
    num_labels = 1200
    generator = np.random.default_rng(0)
    said_NK = generator.dirichlet(np.full(num_labels, 0.05), size=40)
    labels_N = said_NK.argmax(axis=1)
    labels_N[:20] = generator.integers(num_labels, size=20)
    rows = Evidence({"said": said_NK}, None, (), labels_N, np.arange(40))
    settings = Settings(floor=1e-4, constant="zero", max_temperature=20.0, seed=0)
    lines = tabulate_floors(rows, rows, settings)
    assert [line["floor"] for line in lines] == pytest.approx([1e-12, 1e-6, 5e-5, 1e-4, 2e-4, 0.5 / num_labels])


def test_thresholds_are_counted_at_or_above() -> None:
    p_N = np.array([0.1, 0.5, 0.5, 0.9])
    lines = tabulate_thresholds(np.stack([1 - p_N, p_N], axis=1), np.array([0, 0, 1, 1]), [0.05, 0.5, 0.9, 0.95])
    assert [line["precision"] for line in lines] == [0.5, pytest.approx(2 / 3), 1.0, None]
    assert [line["recall"] for line in lines] == [1.0, 1.0, 0.5, 0.0]
    assert [line["share_flagged"] for line in lines] == [1.0, 0.75, 0.25, 0.0]
    many = tabulate_thresholds(np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]), np.array([0, 1]), [0.5])
    assert many == [{"threshold": 0.5, "precision": 0.5, "recall": 0.5, "share_flagged": pytest.approx(1 / 3)}]


def test_parts_are_of_the_same_rows_before_and_after(two_labels: Study) -> None:
    parts = two_labels.metrics["parts"]
    assert set(parts) == {"region", "length", "readability", "negation", "hedging"}
    for of_method in parts.values():
        before, after = of_method.values()
        assert [(p["name"], p["num_rows"]) for p in before] == [(p["name"], p["num_rows"]) for p in after]
        assert sum(p["num_rows"] for p in before) == two_labels.metrics["num_parsed_rows"]
    high_before, high_after = (part[0] for part in parts["region"].values())
    assert high_before["name"].startswith("high")
    # Where it claimed to be surest it was too sure; scaled, much less so.
    assert high_before["ece"] > 2 * high_after["ece"]
