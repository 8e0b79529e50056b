"""What all launchers share: words of the command line in, exit code out."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from clsgen_dist.config.answers import AnswersRequest, answers_config, plain_answers_config
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, help_text, load_config
from clsgen_dist.config.services import without_secret
from clsgen_dist.errors import ClsGenError, ConfigError, Interrupted
from clsgen_dist.records import CalibrateRequest, EvaluateRequest, PredictRequest

#: Exit codes beside 0: the run failed; the input cannot be used; the user stopped it.
FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130


#: Keeps libraries from drawing bars and notes of their own into the console; whoever sets one keeps it.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
    "RAY_DEDUP_LOGS": "1",
}


def quiet_console() -> None:
    """Leaves the console to this program. Called before any heavy import; child processes inherit it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def parse_words(words: Sequence[str], options: Sequence[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Splits a command line into the launcher's own options and dotted overrides.

    Args:
        words: the command line without the program.
        options: names of own options beside `config`, each with a value.

    Returns:
        Values of own options by name, and the words that are left.

    Raises:
        ConfigError: an own option without a value.
    """
    own = {"config", *options, "local_rank"}  # the deepspeed launcher adds --local_rank
    found: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name.replace("-", "_") not in own:
            rest.append(word)
            if word.startswith("--") and not equals and waiting:  # an override: its value may look like anything
                rest.append(waiting.pop(0))
            continue
        if not equals:
            if not waiting:
                raise ConfigError(f"--{name}: expected a value after it")
            value = waiting.pop(0)
        found[name.replace("-", "_")] = value
    return found, rest


def config_of(words: Sequence[str]) -> RunConfig:
    """The configuration that a command line names. Raises ConfigError."""
    found, overrides = parse_words(words)
    return load_config(config_path(found), overrides)


def config_path(found: dict[str, str]) -> str:
    """The file of --config, of the options that `parse_words` found. Raises ConfigError."""
    if "config" not in found:
        raise ConfigError("--config FILE.yaml is missing; --help lists every setting")
    return found["config"]


def predict_request(words: Sequence[str]) -> PredictRequest:
    """Reads the command line of launchers/predict.py.

    Raises:
        ConfigError: an option is missing, doubled or unknown.
    """
    found, rest = parse_words(words, ("bundle", "input", "output", "base", "explain"))
    if ("bundle" in found) == ("config" in found):
        raise ConfigError("give either --bundle FOLDER or --config FILE.yaml")
    for name in ("input", "output"):
        if name not in found:
            raise ConfigError(f"--{name} FILE is missing")
    explain = found.get("explain")
    if explain not in (None, "all", "uncertain", "none"):
        raise ConfigError(f"--explain: found {explain!r}, expected all, uncertain or none")
    overrides = _overrides(rest)
    strange = [words[0] for words in overrides if not words[0].startswith(("--data.", "--predict.", "--ray."))]
    if strange and "bundle" in found:
        raise ConfigError(f"{strange[0]}: with --bundle only settings of data, predict and ray may follow")
    settings = [word for words in overrides if words[0].startswith(("--predict.", "--ray.")) for word in words]
    bundle, storage = Path(found.get("bundle", "")), None
    short = [] if explain is None else ["--predict.explain", explain]
    if "config" in found:
        config = load_config(found["config"], [*rest, *short])
        bundle = RunFolder(config.folder).bundle
        storage = config.stored_at
        settings = [
            f"--{section}.{name}={'null' if value is None else value}"
            for section in ("predict", "ray")
            for name, value in getattr(config, section).model_dump().items()
        ]
    columns = tuple(word for words in overrides if words[0].startswith("--data.") for word in words)
    return PredictRequest(
        bundle, found["input"], Path(found["output"]), found.get("base"), columns, (*settings, *short), storage
    )


def answers_request(words: Sequence[str]) -> AnswersRequest | None:
    """Reads the command line of launchers/verbalize.py; None where no file of answers is named.

    Raises:
        ConfigError: an option is missing or has no use.
    """
    found, rest = parse_words(words, ("answers", "calibration_answers", "labels", "output"))
    if "answers" not in found:
        strange = sorted(found.keys() & {"calibration_answers", "labels", "output"})
        if strange:
            raise ConfigError(f"--{strange[0].replace('_', '-')}: only with --answers FILE.jsonl")
        return None
    if ("labels" in found) == ("config" in found):
        raise ConfigError("--answers: the labels come from --config FILE.yaml, or from --labels no,yes; give one")
    if "config" in found:
        config, output = answers_config(found["config"], rest)
        output = Path(found.get("output", output))
    elif "output" in found:
        config, output = plain_answers_config(found["labels"], rest), Path(found["output"])
    else:
        raise ConfigError("--output FOLDER is missing: without --config there is no run folder to write to")
    calibration = found.get("calibration_answers")
    return AnswersRequest(config, Path(found["answers"]), None if calibration is None else Path(calibration), output)


def calibrate_request(words: Sequence[str]) -> CalibrateRequest:
    """Reads the command line of launchers/calibrate.py.

    Raises:
        ConfigError: an option is missing or unknown.
    """
    found, rest = parse_words(words, ("bundle", "data", "test", "base"))
    if "config" in found:
        raise ConfigError("--config: a bundle knows its task; give --bundle FOLDER and --data FILE")
    for name in ("bundle", "data"):
        if name not in found:
            raise ConfigError(f"--{name} is missing; give --bundle FOLDER and --data FILE")
    overrides = _overrides(rest)
    known = ("--data.", "--calibrate.", "--evaluate.num_bins", "--evaluate.num_bootstrap", "--run.seed")
    strange = [words[0] for words in overrides if not words[0].startswith(known)]
    if strange:
        raise ConfigError(
            f"{strange[0]}: only settings of data and calibrate, evaluate.num_bins, evaluate.num_bootstrap and "
            "run.seed may follow"
        )
    columns = tuple(word for words in overrides if words[0].startswith("--data.") for word in words)
    settings = tuple(word for words in overrides if not words[0].startswith("--data.") for word in words)
    return CalibrateRequest(
        Path(found["bundle"]), found["data"], found.get("test"), found.get("base"), columns, settings
    )


def evaluate_request(words: Sequence[str]) -> EvaluateRequest:
    """Reads the command line of launchers/evaluate.py.

    Raises:
        ConfigError: an option is missing or unknown.
    """
    found, rest = parse_words(words, ("bundle", "data", "output", "explanations", "base"))
    if "config" in found:
        raise ConfigError("--config: a bundle knows its task; give --bundle FOLDER and --data FILE")
    for name in ("bundle", "data"):
        if name not in found:
            raise ConfigError(f"--{name} is missing; give --bundle FOLDER and --data FILE")
    overrides = _overrides(rest)
    known = ("--data.", "--evaluate.", "--predict.", "--run.seed")
    strange = [words[0] for words in overrides if not words[0].startswith(known)]
    if strange:
        raise ConfigError(f"{strange[0]}: only settings of data, evaluate and predict, and run.seed may follow")
    columns = tuple(word for words in overrides if words[0].startswith("--data.") for word in words)
    settings = tuple(word for words in overrides if not words[0].startswith("--data.") for word in words)
    bundle = Path(found["bundle"])
    run = RunFolder(bundle.absolute().parent)
    if "output" in found:
        output = Path(found["output"])
    elif run.config.is_file():
        output = run.evaluation(Path(found["data"]).stem)
    else:
        raise ConfigError("--output FOLDER is missing: the bundle stands in no run folder to write to")
    taught = run.rows("train") if run.rows("train").is_file() else None
    explanations = Path(found["explanations"]) if "explanations" in found else taught
    return EvaluateRequest(bundle, found["data"], output, explanations, found.get("base"), columns, settings)


def sync_request(words: Sequence[str]) -> tuple[Path, str | None]:
    """Reads the command line of launchers/sync_tracking.py: the run folder, and the address or None.

    Raises:
        ConfigError: an option is missing or unknown, or the folder is not there.
    """
    found, rest = parse_words(words, ("run", "tracking.uri"))
    strange = [*(f"--{name}" for name in found if name not in ("run", "tracking.uri")), *rest]
    if strange:
        raise ConfigError(f"{strange[0]}: only --run FOLDER and --tracking.uri ADDRESS may be given")
    if "run" not in found:
        raise ConfigError("--run FOLDER is missing; it is OUTPUT_DIR/RUN_NAME")
    folder = Path(found["run"]).absolute()
    if not folder.is_dir():
        raise ConfigError(f"--run {found['run']}: there is no such folder; it is OUTPUT_DIR/RUN_NAME")
    uri = found.get("tracking.uri")
    try:
        return folder, None if uri is None else without_secret(uri)
    except ValueError as error:
        raise ConfigError(f"--tracking.uri: {error}") from None


def _overrides(words: Sequence[str]) -> list[list[str]]:
    """The words of each override: `--a.b=c` is one, `--a.b c` two."""
    waiting, found = list(words), list[list[str]]()
    while waiting:
        word = waiting.pop(0)
        takes_next = word.startswith("--") and "=" not in word
        found.append([word, *([waiting.pop(0)] if takes_next and waiting else [])])
    return found


def leads() -> bool:
    """Whether this process speaks for its group."""
    return os.environ.get("RANK", "0") == "0"


def main(usage: str, run: Callable[[list[str]], None], *, has_settings: bool = True) -> None:
    """Runs a launcher: `--help`, errors as one message, exit codes.

    Args:
        usage: what the launcher does and how it is called; its docstring.
        run: takes the words of the command line.
        has_settings: whether settings of a run configuration may be among them.
    """
    quiet_console()
    words = sys.argv[1:]
    if not words or "--help" in words or "-h" in words:
        settings = f"\n\nSettings of the configuration, each also an override:\n\n{help_text()}"
        print(usage.strip() + (settings if has_settings else ""))
        sys.exit(0 if words else UNUSABLE)
    try:
        run(words)
    except ClsGenError as error:
        said = f"{'stopped' if isinstance(error, Interrupted) else 'error'}: {error}"
        if not leads():
            time.sleep(5)  # the launcher ends all ranks when one ends: rank 0 speaks first, and others where it cannot
            said = f"rank {os.environ['RANK']}: {said}"
        print(said, file=sys.stderr, flush=True)
        _leave(error.exit_code)
    except Exception:
        if not leads():
            time.sleep(5)  # where rank 0 failed alone, the others only see it go: as above
        raise
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr, flush=True)
        _leave(INTERRUPTED)


def _leave(code: int) -> None:
    """Ends without waiting for other ranks, which may wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
