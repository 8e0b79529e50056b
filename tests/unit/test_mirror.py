"""A run folder in a store, and its copies on nodes that share no disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from clsgen_dist.errors import CheckpointError, ConfigError
from clsgen_dist.mirror import Mirror, kept_alike
from clsgen_dist.objects import Objects, Stored


class Counted(Objects):
    """Objects that remember the names of what went to and fro; some stores say no times."""

    def __init__(self, uri: str, *, tells_times: bool = True) -> None:
        super().__init__(uri)
        self.went: list[str] = []
        self.tells_times = tells_times

    def listing(self) -> dict[str, Stored]:
        found = super().listing()
        return found if self.tells_times else {name: Stored(one.size, -1) for name, one in found.items()}

    def upload(self, path: Path, name: str) -> None:
        self.went.append(name)
        super().upload(path, name)

    def download(self, name: str, path: Path) -> None:
        self.went.append(name)
        super().download(name, path)


def node(tmp_path: Path, name: str) -> tuple[Mirror, Counted]:
    objects = Counted(f"file://{tmp_path}/store")
    return Mirror(objects, tmp_path / name / "run"), objects


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_copy_on_another_node_is_the_folder(tmp_path: Path) -> None:
    (one, went), (other, came) = node(tmp_path, "one"), node(tmp_path, "other")
    fill(one.folder, config="c", rows__train="t", bundle__weights="w")
    (one.folder / "bundle" / "manifest.json").write_text("m")
    (one.folder / "config.yaml").write_text("y")

    one.push()
    other.pull()

    assert content(other.folder) == content(one.folder)
    assert went.went[-2:] == came.went[-2:] == ["bundle/manifest.json", "config.yaml"], "what says ready comes last"


def test_only_what_changed_goes(tmp_path: Path) -> None:
    (one, went), (other, came) = node(tmp_path, "one"), node(tmp_path, "other")
    fill(one.folder, a="1", b="1")
    one.push()
    other.pull()
    went.went.clear()
    came.went.clear()

    one.push()
    other.pull()
    assert (went.went, came.went) == ([], [])
    fill(one.folder, b="22")
    one.push()
    other.pull()

    assert (went.went, came.went) == (["b"], ["b"])
    assert content(other.folder) == {"a": "1", "b": "22"}


def test_a_store_without_times_is_read_anew_each_time(tmp_path: Path) -> None:
    """What changed and kept its size would else be taken for what it was."""
    (one, _), (other, _) = node(tmp_path, "one"), node(tmp_path, "other")
    for mirror in (one, other):
        mirror.objects = Counted(f"file://{tmp_path}/store", tells_times=False)
    fill(one.folder, a="1")
    one.push()
    other.pull()
    fill(one.folder, a="2")
    one.push()
    other.pull()
    assert content(other.folder) == {"a": "2"}


def test_checkpoints_and_hidden_files_stay_where_they_are(tmp_path: Path) -> None:
    one, _ = node(tmp_path, "one")
    fill(one.folder, checkpoints__step_1__rank="x", a="1")
    fill(one.folder, **{".signs__0": "x", "tokens__.part": "x"})
    one.push()
    assert list(one.objects.listing()) == ["a"]


def test_keys_that_lead_out_of_the_folder_are_not_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, came = node(tmp_path, "one")
    one.objects.write("good", b"1")
    names = ["good", "../out", f"/{tmp_path}/out", "a/../../../out", "a//b"]
    monkeypatch.setattr(Objects, "listing", lambda self: dict.fromkeys(names, Stored(1, 5)))
    one.pull()
    assert came.went == ["good"]


def test_what_is_taken_away_goes_from_all_copies(tmp_path: Path) -> None:
    (one, _), (other, _) = node(tmp_path, "one"), node(tmp_path, "other")
    fill(one.folder, a="1", b="1")
    one.push()
    other.pull()
    fill(other.folder, own="never in the store")

    (one.folder / "b").unlink()
    one.push()
    other.pull()

    assert content(other.folder) == {"a": "1", "own": "never in the store"}


def test_what_was_changed_here_since_is_kept_and_goes_with_the_next_push(tmp_path: Path) -> None:
    """As of a bundle that was calibrated anew, or of a process that died before it could push."""
    (one, _), (other, _) = node(tmp_path, "one"), node(tmp_path, "other")
    fill(one.folder, a="1")
    one.push()
    fill(one.folder, a="calibrated anew", new="1")

    one.pull()
    assert content(one.folder) == {"a": "calibrated anew", "new": "1"}
    one.push()
    other.pull()

    assert content(other.folder) == {"a": "calibrated anew", "new": "1"}


def test_a_node_that_was_behind_gets_what_others_wrote(tmp_path: Path) -> None:
    (one, _), (other, _) = node(tmp_path, "one"), node(tmp_path, "other")
    fill(one.folder, a="1")
    one.push()
    other.pull()
    fill(other.folder, a="of the other")
    other.push()
    fill(one.folder, a="never pushed")

    one.pull()

    assert content(one.folder) == {"a": "of the other"}


def test_a_bundle_without_its_manifest_is_not_brought(tmp_path: Path) -> None:
    (one, _), (other, _) = node(tmp_path, "one"), node(tmp_path, "other")
    fill(one.folder, a="1", bundle__weights="half")
    one.push()
    other.pull()
    assert content(other.folder) == {"a": "1"}


def test_a_bundle_of_which_one_file_came_is_not_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that calibrates dies between the calibrator and the manifest that knows its hash."""
    (one, _), (other, _) = node(tmp_path, "one"), node(tmp_path, "other")
    fill(one.folder, bundle__calibrator="1")
    (one.folder / "bundle" / "manifest.json").write_text("of 1")
    one.push()
    fill(one.folder, bundle__calibrator="22")
    (one.folder / "bundle" / "manifest.json").write_text("of 22")
    with monkeypatch.context() as patched:
        upload = Counted.upload

        def dies(self: Counted, path: Path, name: str) -> None:
            if name == "bundle/manifest.json":
                raise OSError("gone")
            upload(self, path, name)

        patched.setattr(Counted, "upload", dies)
        with pytest.raises(CheckpointError):
            one.push()

    other.pull()
    assert content(other.folder) == {}
    one.pull()
    one.push()
    other.pull()

    assert content(other.folder) == {"bundle/calibrator": "22", "bundle/manifest.json": "of 22"}


def test_what_is_refused_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """A folder of another run, say: nothing of it belongs there."""
    one, _ = node(tmp_path, "one")
    fill(one.folder, config="of another run")

    def refuse() -> None:
        with kept_alike(one):
            raise ConfigError("another run")

    with pytest.raises(ConfigError):
        refuse()
    assert one.objects.listing() == {}


def test_a_copy_that_is_gone_is_brought_again_and_costs_the_store_nothing(tmp_path: Path) -> None:
    one, _ = node(tmp_path, "one")
    fill(one.folder, a="1", b="2")
    one.push()
    for path in one.folder.iterdir():
        path.unlink()
    one.folder.rmdir()

    one.pull()
    one.push()

    assert content(one.folder) == {"a": "1", "b": "2"}
    assert set(one.objects.listing()) == {"a", "b"}


def test_a_record_of_another_store_or_of_nothing_readable_counts_for_nothing(tmp_path: Path) -> None:
    one, _ = node(tmp_path, "one")
    fill(one.folder, a="1")
    one.push()
    elsewhere = Mirror(Objects(f"file://{tmp_path}/elsewhere"), one.folder)
    elsewhere.push()
    assert set(elsewhere.objects.listing()) == {"a"}

    (one.folder.parent / ".run.mirror.json").write_text('{"files": [')
    one.pull()
    one.push()

    assert content(one.folder) == {"a": "1"}


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    one, _ = node(tmp_path, "one")
    (tmp_path / "store").write_text("a file in its place")
    fill(one.folder, a="1")
    with pytest.raises(CheckpointError, match=r"store: cannot be written .*the copy in .* stays as it is"):
        one.push()
    assert content(one.folder) == {"a": "1"}


def test_what_is_done_before_an_error_is_kept_and_the_error_is_told(tmp_path: Path) -> None:
    one, _ = node(tmp_path, "one")

    def ask() -> None:
        with kept_alike(one):
            fill(one.folder, answers="1")
            raise ValueError("the teacher is away")

    with pytest.raises(ValueError, match="the teacher"):
        ask()
    assert set(one.objects.listing()) == {"answers"}
    with kept_alike(None):
        pass
