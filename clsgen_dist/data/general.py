"""General text from a file: plain words, a blank line between passages."""

from __future__ import annotations

import re
from pathlib import Path

from clsgen_dist.errors import DataError


def read_passages(path: Path) -> list[str]:
    """The passages of a text file, in their order.

    Raises:
        DataError: the file is missing, not UTF-8, or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"data.general_text: {path} is not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"data.general_text: {path} cannot be read ({error.strerror})") from None
    passages = [passage.strip() for passage in re.split(r"\n\s*\n", text) if passage.strip()]
    if not passages:
        raise DataError(f"data.general_text: no words in {path}")
    return passages
