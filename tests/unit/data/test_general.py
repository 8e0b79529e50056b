"""General text is read from a file of plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from clsgen_dist.data.general import read_passages
from clsgen_dist.errors import DataError


def test_a_blank_line_parts_passages(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("One\nof two lines.\n\n \t\nTwo.\n\n\n", encoding="utf-8")
    assert read_passages(path) == ["One\nof two lines.", "Two."]


@pytest.mark.parametrize(("content", "message"), [(b" \n\n", "no words in"), (b"caf\xe9", "not UTF-8"), (None, "read")])
def test_files_that_hold_no_text(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_passages(path)
