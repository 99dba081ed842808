"""What a server process arranges before it begins."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fooocusapi.serve import let_threads_rest


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({}, {"GOMP_SPINCOUNT": "2000"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_rest_unless_the_user_says_how_they_wait(said: dict[str, str], kept: dict[str, str]) -> None:
    let_threads_rest(said)
    assert said == kept


def test_torch_is_not_imported_before() -> None:
    program = "import sys, fooocusapi.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode == 0
