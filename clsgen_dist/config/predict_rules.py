"""Combinations that cannot work where rows are predicted."""

from __future__ import annotations

from clsgen_dist.config.rule import Rule

PREDICT_RULES = (
    Rule(
        ("predict", "explain"),
        "predict.explain uncertain without predict.uncertain_margin",
        "say how near the operating threshold a probability is that needs an explanation, as 0.1",
        lambda c: c.predict.explain == "uncertain" and c.predict.uncertain_margin is None,
    ),
    Rule(
        ("predict", "uncertain_margin"),
        "predict.uncertain_margin with predict.explain all or none",
        "no row is looked at for it; set predict.explain to uncertain, or take the margin away",
        lambda c: c.predict.explain != "uncertain" and c.predict.uncertain_margin is not None,
    ),
)
