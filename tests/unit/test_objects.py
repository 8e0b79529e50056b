"""Objects of servers that speak as S3 and as Google's store do, and of a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from clsgen_dist.errors import ConfigError
from clsgen_dist.objects import Objects
from tests.support.object_store import Bucket, gs_bucket, s3_bucket


@pytest.fixture(scope="module")
def buckets() -> Iterator[dict[str, Bucket]]:
    with s3_bucket() as s3, gs_bucket() as gs:
        yield {"s3": s3, "gs": gs}


@pytest.fixture(params=["file", "s3", "gs"])
def objects(
    request: pytest.FixtureRequest, buckets: dict[str, Bucket], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Objects:
    if request.param == "file":
        return Objects(f"file://{tmp_path}/store")
    bucket = buckets[request.param]
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return Objects(f"{bucket.uri}/{tmp_path.name}")


def test_what_is_written_is_read(objects: Objects, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 40_000)  # more than is read at once
    assert objects.listing() == {}

    objects.write("a.json", b"{}")
    objects.upload(large, "folder/large")
    objects.below("folder").write("small", b"")

    assert {name: stored.size for name, stored in objects.listing().items()} == {
        "a.json": 2,
        "folder/large": 10_240_000,
        "folder/small": 0,
    }
    assert set(objects.below("folder").listing()) == {"large", "small"}
    assert objects.read("a.json") == b"{}"
    objects.download("folder/large", tmp_path / "copy" / "large")
    assert (tmp_path / "copy" / "large").read_bytes() == large.read_bytes()
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["large"]


def test_what_is_taken_away_is_gone(objects: Objects) -> None:
    for name in ("a", "b/c", "b/d", "bb/e"):
        objects.write(name, b"x")

    objects.delete("a")
    objects.delete("a")
    objects.below("b").delete_all()

    assert set(objects.listing()) == {"bb/e"}
    assert objects.has("bb/e")
    assert not objects.has("b/c")
    with pytest.raises(FileNotFoundError):
        objects.read("a")


def test_a_download_that_fails_leaves_the_file_as_it_was(objects: Objects, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.write_text("before")

    with pytest.raises(FileNotFoundError):
        objects.download("absent", place)

    assert place.read_text() == "before"
    assert not list(tmp_path.glob(".kept*"))


def test_what_is_taken_away_while_it_is_read_is_absent(objects: Objects, tmp_path: Path) -> None:
    """A store is asked twice: for the size, then for the bytes."""
    ended, times = threading.Event(), 0

    def come_and_go() -> None:
        nonlocal times
        while not ended.is_set():
            objects.write("a", b"x" * 1000)
            objects.delete("a")
            times += 1

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(150):
            with suppress(FileNotFoundError):
                assert objects.read("a") == b"x" * 1000
            with suppress(FileNotFoundError):
                objects.download("a", tmp_path / "copy")
                assert (tmp_path / "copy").read_bytes() == b"x" * 1000
    finally:
        was_running = other.is_alive()
        ended.set()
        other.join()
    assert was_running, "the writer failed on the way"
    assert times > 10


def test_an_upload_that_fails_leaves_nothing(tmp_path: Path) -> None:
    objects = Objects(f"file://{tmp_path}/store")
    objects.write("kept", b"before")

    with pytest.raises(IsADirectoryError):
        objects.upload(tmp_path, "kept")
    (tmp_path / "store" / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        objects.write("folder", b"x")

    assert objects.listing().keys() == {"kept"}
    assert objects.read("kept") == b"before"
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["folder", "kept"]


def test_a_store_that_does_not_answer_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(OSError, match=r"(?i)connect"):
        Objects("s3://runs/x").listing()


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"run\.storage ftp://x: no address of an object store"):
        Objects("ftp://x")
