"""What the doors need once: a bundle, an endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.doors import Doors


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    opened = Doors(tmp_path_factory.mktemp("hostile"))
    yield opened
    opened.close()
