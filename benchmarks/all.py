"""Every benchmark that a page shows, one after the other, each in a process of its own.

``python benchmarks/all.py [--write-pages] [--json FOLDER]``. Takes about ten minutes, on a machine that does nothing
else. What needs a graphics card is left out where there is none. Exits with 1 if one has failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
PERFORMANCE = "docs/performance.md"
PAGES: Final[Mapping[str, str]] = {
    "run": "docs/benchmarks.md",
    "service": PERFORMANCE,
    "png": PERFORMANCE,
    "engine": PERFORMANCE,
    "shortcuts": PERFORMANCE,
    "together": PERFORMANCE,
    "reuse": PERFORMANCE,
    "memory": PERFORMANCE,
    "gpu": PERFORMANCE,
}
"""Which page has the table of each."""
NEEDS_CARD: Final = "gpu"


def names() -> list[str]:
    """Those that can be run here."""
    import torch

    return [name for name in PAGES if name != NEEDS_CARD or torch.cuda.is_available()]


def command(name: str, *, write_pages: bool, json_folder: Path | None) -> list[str]:
    """What runs one of them."""
    page = ["--markdown", str(ROOT / PAGES[name])] if write_pages else []
    figures = [] if json_folder is None else ["--json", str(json_folder.resolve() / f"{name}.json")]
    return [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *page, *figures]


def main() -> int:
    """Run them all; tell which have failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-pages", action="store_true", help="put the tables into the pages of docs")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write the figures of each into this folder")
    given = parser.parse_args()
    if given.json is not None:
        given.json.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names():
        print(f"\n== {name} ==", flush=True)  # noqa: T201
        if subprocess.run(command(name, write_pages=given.write_pages, json_folder=given.json), cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
