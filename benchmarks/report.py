"""How figures are written down, for people and on the pages of the documentation."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from fooocus_core.presets.sizes import Size

BEGIN_MARK, END_MARK = "<!-- figures: written by {script} -->", "<!-- end of figures -->"
ABSENT = "–"  # noqa: RUF001 - a dash for people


def shown(value: float | None) -> str:
    """Three digits that matter, or a dash."""
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spelt(size: Size) -> str:
    """``1024x1024``, which both the server and the peer read."""
    return f"{size.width_px}x{size.height_px}"


def machine() -> str:
    """The processor's name and how many cores there are to be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores} cores"


def versions(packages: tuple[str, ...]) -> str:
    """Of Python and of these packages, in a line."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def with_figures(page: str, table: str, script: str) -> str:
    """``page`` with what stands between the script's two marks replaced. Raises ``ValueError`` if it lacks them."""
    mark = BEGIN_MARK.format(script=script)
    before, begin, rest = page.partition(mark)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise ValueError("the page has no place for figures")
    return f"{before}{mark}\n\n{table}\n\n{END_MARK}{after}"


def write_figures(page: Path, table: str, script: str) -> None:
    """The table between the script's marks of a page. Raises ``ValueError`` if it lacks them."""
    page.write_text(with_figures(page.read_text(encoding="utf-8"), table, script), encoding="utf-8")


def write_section(page: Path, section: str, table: str, script: str) -> None:
    """The table between its marks; a page that lacks them gets them with ``section``, one that is not there a title."""
    text = page.read_text(encoding="utf-8") if page.exists() else "# Performance\n"
    if BEGIN_MARK.format(script=script) not in text:
        text += section
    page.write_text(with_figures(text, table, script), encoding="utf-8")
