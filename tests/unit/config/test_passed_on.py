"""What processes of a cluster are given of the environment of the run that starts it."""

from __future__ import annotations

from clsgen_dist.config.passed_on import kept_by_own_cluster


def test_an_own_cluster_gets_what_it_needs_and_nothing_else() -> None:
    environment = {
        "PATH": "/bin",
        "HF_TOKEN": "t",
        "MLFLOW_TRACKING_PASSWORD": "p",
        "OMP_NUM_THREADS": "1",
        "OPENAI_API_KEY": "k",
        "JUDGE_KEY": "j",
        "DATABASE_PASSWORD": "d",
    }
    settings = {
        "evaluate.judge.api_key_env": "JUDGE_KEY",
        "evaluate.readers": ["verdict"],
        "explain.api_key_env": "OPENAI_API_KEY",  # read by the driver
    }
    needed = {"PATH", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "OMP_NUM_THREADS"}
    kept = kept_by_own_cluster(environment, settings)
    assert kept.keys() == needed
    assert all(environment[name] == value for name, value in kept.items())
    judged = kept_by_own_cluster(environment, {**settings, "evaluate.readers": ["verdict", "judge"]})
    assert judged.keys() == needed | {"JUDGE_KEY"}
