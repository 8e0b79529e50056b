"""What one process of a comparison does, and nothing else: its memory goes with it, and its failure stays its own.

python -m clsgen_dist.compare.work --config FILE.yaml --kind KIND
"""

from __future__ import annotations

from clsgen_dist import launch
from clsgen_dist.config.run import load_config
from clsgen_dist.errors import ConfigError

#: Makes the rows of all arms.
ROWS_KIND = "rows"


def run(words: list[str]) -> None:
    """Runs one arm with one seed, or makes the rows."""
    found, rest = launch.parse_words(words, ("kind",))
    if "config" not in found or "kind" not in found:
        raise ConfigError("give --config FILE.yaml and --kind KIND")
    config, kind = load_config(found["config"], rest), found["kind"]
    from clsgen_dist.progress import ProgressBar

    with ProgressBar() as bar:
        if kind == ROWS_KIND:
            from clsgen_dist.compare.frozen import freeze_rows
            from clsgen_dist.explain.stage import explain_run

            hire = None
            if config.explain.num_workers is not None:
                from clsgen_dist.orchestrate.ray_explain import hire_on_ray

                hire = hire_on_ray
            explain_run(config, bar, hire)
            freeze_rows(config)
        elif kind in ("trained", "zero_shot_label_tokens"):
            from clsgen_dist.pipeline import run_with_ray

            run_with_ray(config, bar, is_trained=kind == "trained")
        elif kind in ("zero_shot_verbalised", "bag_of_words"):
            from clsgen_dist.compare.untrained import run_untrained

            run_untrained(config, kind, bar)
        else:
            raise ConfigError(f"--kind: {kind!r} is no kind of an arm that is run")


if __name__ == "__main__":
    launch.main(__doc__ or "", run)
