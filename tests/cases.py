"""Many small cases in one test: all are tried, and the failing ones are named.

A test item costs pytest a few milliseconds, which is more than most of these cases take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import pytest

Case = TypeVar("Case")
SHOWN = 10
"""Failures told in full."""


def check_all(cases: Mapping[str, Case], check: Callable[[Case], object]) -> None:
    """Try every case by its name; fail with the names and reasons of those that failed, or if there are none."""
    assert cases, "no cases"
    failures = [f"{name}: {reason}" for name, case in cases.items() if (reason := _reason(check, case)) is not None]
    if failures:
        more = [f"... and {len(failures) - SHOWN} more"] if len(failures) > SHOWN else []
        pytest.fail("\n".join([f"{len(failures)} of {len(cases)} cases failed", *failures[:SHOWN], *more]))


def _reason(check: Callable[[Case], object], case: Case) -> str | None:
    try:
        check(case)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"  # the rest repeats whole tensors
    return None


def grouped(
    cases: Iterable[Case], name: Callable[[Case], str], group: Callable[[Case], str]
) -> dict[str, dict[str, Case]]:
    """Cases by the test item they belong to, then by their own name. Raises ``ValueError`` where two share a name."""
    groups: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in cases:
        members = groups[group(case)]
        if name(case) in members:
            raise ValueError(f"two cases are called {name(case)}")
        members[name(case)] = case
    return dict(groups)
