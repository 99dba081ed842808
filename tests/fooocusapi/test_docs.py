"""The documentation pages: whole without a network, open without the key, and nothing else of the disk with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from fooocusapi.settings import Settings
from tests.fooocusapi.served import House, serving

LINK = re.compile(r"""(?:src|href|spec-url)=["']([^"']+)["']""")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    house = House(tmp_path_factory.mktemp("docs"), settings=Settings(apikey="secret"))  # type: ignore[arg-type]
    with serving(house) as client:
        yield client


@pytest.mark.parametrize(
    ("page", "scripts"), [("/docs", {"swagger-ui-bundle.js"}), ("/redoc", {"redoc.standalone.js"})]
)
def test_the_pages_bring_everything_along(locked: TestClient, page: str, scripts: set[str]) -> None:
    answer = locked.get(page)
    assert answer.headers["content-type"].startswith("text/html")
    links = LINK.findall(answer.text)
    assert {Path(link).name for link in links} >= scripts
    for link in links:
        asset = locked.get(link)
        assert asset.status_code == 200, link
        assert len(asset.content) > 1000
    assert "://" not in answer.text, "nothing is fetched from elsewhere"


def test_the_page_shows_our_document(locked: TestClient) -> None:
    assert "'/openapi.json'" in locked.get("/docs").text
    assert locked.get("/docs/oauth2-redirect").status_code == 200


@pytest.mark.parametrize(
    "path", ["", "/", "/%2e%2e/core.py", "/..%2fcore.py", "/%2e%2e%2fconsts.py", "//etc/passwd", "/nothing.js"]
)
def test_the_assets_are_all_there_is(locked: TestClient, path: str) -> None:
    assert locked.get(f"/docs/assets{path}").status_code in (403, 404)
