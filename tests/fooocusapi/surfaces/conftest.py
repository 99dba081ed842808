"""What the tests of all dialects share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from tests.fooocus_core.stages.rendering import Studio
from tests.fooocusapi.served import FakeLibrary, House, serving


@pytest.fixture(scope="package")
def studio_house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """The server that paints with the pocket model; it begins with ``painting``."""
    house = House(tmp_path_factory.mktemp("painting"), library=FakeLibrary(["pocket.safetensors"], []))
    house.engine = Studio(tmp_path_factory.mktemp("models")).engine
    house.engine.pictures = lambda name: house.kept.read(name)
    return house


@pytest.fixture(scope="package")
def painting(studio_house: House) -> Iterator[TestClient]:
    """A client of a server with the pocket model."""
    with serving(studio_house) as client:
        yield client
