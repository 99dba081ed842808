"""The house's one-way street: the core never imports the server, nor what only a server needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVER_ONLY = {"fooocusapi", "fastapi", "starlette", "pydantic", "uvicorn", "sqlalchemy"}


def imported_packages(source: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            packages.add(node.module.split(".")[0])
    return packages


@pytest.mark.parametrize("source", sorted((ROOT / "fooocus_core").rglob("*.py")), ids=lambda path: path.name)
def test_core_never_imports_the_server(source: Path) -> None:
    assert not imported_packages(source) & SERVER_ONLY


@pytest.mark.parametrize("source", sorted((ROOT / "fooocusapi").rglob("*.py")), ids=lambda path: path.name)
def test_threads_are_asked_through_our_own_way(source: Path) -> None:
    """Through the framework's, what a refused request held would stay until the next full collection."""
    assert "fastapi.concurrency" not in source.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fooocus_core.plan", "torch"),
        ("fooocus_core.resolve", "torch"),
        ("fooocusapi.app", "torch"),
        ("fooocusapi.app", "sqlalchemy"),
        ("fooocusapi.cli", "torch"),
        ("fooocus_core.images.preprocessors", "cv2"),
        ("fooocus_core.masks.generate", "torch"),
        ("fooocus_core.masks.generate", "onnxruntime"),
    ],
)
def test_heavy_imports_are_lazy(module: str, heavy: str) -> None:
    """The port must answer within a second of the start, so what opens it cannot wait for torch."""
    code = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
