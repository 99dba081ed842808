"""What the tests of all dialects share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from fooocus_core.library import Library
from fooocus_core.masks.models import MaskModels
from fooocus_core.model_files.catalogue import Catalogue
from tests.fooocus_core.stages.rendering import CPU, Studio
from tests.fooocusapi.served import FakeLibrary, House, serving


@pytest.fixture(scope="package")
def studio_house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """The server that paints with the pocket model; it begins with ``painting``."""
    house = House(tmp_path_factory.mktemp("painting"), library=FakeLibrary(["pocket.safetensors"], []))
    models = tmp_path_factory.mktemp("models")
    house.engine = Studio(models).engine
    house.engine.pictures = lambda name: house.staged.read(house.kept.read)(name)
    house.engine.masks = MaskModels(Library.below(models), Catalogue.of(), lambda: CPU.device)
    return house


@pytest.fixture(scope="package")
def painting(studio_house: House) -> Iterator[TestClient]:
    """A client of a server with the pocket model."""
    with serving(studio_house) as client:
        yield client
