"""Simulated predictions, made where tests of other kinds find them, too."""

from collections.abc import Callable

import pytest

from tests.support.evaluated import Split, simulate_split


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    return simulate_split
