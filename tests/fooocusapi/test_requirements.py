"""What the project says it needs: bounds that hold, and pins that keep to them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_every_requirement_has_a_bound_and_a_pin_within_it(needed: Requirement) -> None:
    assert any(bound.operator == ">=" for bound in needed.specifier)
    pinned = [next(iter(pin.specifier)).version for pin in PINS if pin.name == needed.name]
    assert pinned
    assert all(needed.specifier.contains(version) for version in pinned)


@pytest.mark.parametrize(
    ("name", "too_old"),
    [
        # 0.131 does not know strict_content_type; up to 0.147 query models do not see misspelt parameters.
        ("fastapi", ["0.131.0", "0.147.0"]),
        # Up to 1.3 finished pictures are compressed a second time.
        ("starlette", ["1.3.0"]),
    ],
)
def test_versions_that_lack_what_is_used_are_excluded(name: str, too_old: list[str]) -> None:
    (needed,) = [needed for needed in NEEDED if needed.name == name]
    assert not any(needed.specifier.contains(version) for version in too_old)
