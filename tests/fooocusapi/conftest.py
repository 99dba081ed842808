"""Servers for the tests of this folder.

``house`` and ``client`` are new for each test, which may change the house before it asks for the client. ``shared``
and ``shared_client`` are the same for a whole module: for tests that only look, or that look at what they made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.fooocusapi.served import House, serving


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with serving(house) as client:
        yield client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def shared_client(shared: House) -> Iterator[TestClient]:
    with serving(shared) as client:
        yield client
