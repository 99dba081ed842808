"""How long PNGs take by ``--png-level``, and how large they are: photographs, a drawing and a page of text.

``python benchmarks/png.py [--runs 5] [--markdown docs/performance.md] [--json FILE]``. The pictures are those that
scikit-image brings; the smaller photographs are enlarged by two, so that all have about a megapixel.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.report import machine, shown, versions, write_figures  # noqa: E402
from benchmarks.timing import median_seconds  # noqa: E402
from fooocus_core.metadata.files import encode_image  # noqa: E402

SCRIPT = "benchmarks/png.py"
PHOTOGRAPHS: Final = {"astronaut": 2, "coffee": 2, "chelsea": 2, "rocket": 2, "hubble_deep_field": 1, "retina": 1}
"""Each by what it is enlarged."""
OTHERS: Final = {"logo": "a drawing", "page": "a page of text"}
LEVELS: Final = (1, 2, 3, 4, 5, 6)
USUAL: Final = 6
"""What PNGs are packed with by most programs: the others are told as shares of it."""
MEGAPIXEL = 1e6
PACKAGES = ("pillow", "numpy", "scikit-image")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Packed:
    """One picture at one level."""

    seconds: float
    size_bytes: int
    pixels: int


def picture(name: str, enlarged: int = 1) -> Pixels:
    """``[h, w, 3]``, enlarged as the server enlarges."""
    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    size = (image.width * enlarged, image.height * enlarged)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def packed(pixels: Pixels, level: int, runs: int) -> Packed:
    """The median time of ``runs``, and what comes of it."""
    seconds = median_seconds(lambda: encode_image(pixels, "png", png_level=level), runs)
    return Packed(seconds, len(encode_image(pixels, "png", png_level=level)), pixels.shape[0] * pixels.shape[1])


def measure(pictures: Sequence[Pixels], runs: int) -> dict[int, list[Packed]]:
    """Every level's pictures, in the same order."""
    return {level: [packed(one, level, runs) for one in pictures] for level in LEVELS}


def as_markdown(photographs: Mapping[int, Sequence[Packed]], others: Mapping[str, Mapping[int, Packed]]) -> str:
    """The table of the documentation."""
    head = ["`--png-level`", "ms a megapixel", f"time, of {USUAL}'s", f"size, of {USUAL}'s"]
    head += [f"size of {name}, kB" for name in others]
    lines = [f"| {' | '.join(head)} |", "|---:|" + "---:|" * (len(head) - 1)]
    for level, several in photographs.items():
        speeds = [1000 * one.seconds / one.pixels * MEGAPIXEL for one in several]
        usual = photographs[USUAL]
        times = [one.seconds / other.seconds for one, other in zip(several, usual, strict=True)]
        sizes = [one.size_bytes / other.size_bytes for one, other in zip(several, usual, strict=True)]
        rest = [shown(other[level].size_bytes / 1000) for other in others.values()]
        cells = [str(level), shown(statistics.mean(speeds)), with_range(times), with_range(sizes), *rest]
        lines.append(f"| {' | '.join(cells)} |")
    conditions = f"{len(photographs[USUAL])} photographs, means and ranges; {machine()}; {versions(PACKAGES)}:"
    return "\n".join([conditions, "", *lines])


def with_range(shares: Sequence[float]) -> str:
    """The mean, and from where to where they reach."""
    return f"{statistics.mean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"


def main() -> None:
    """Measure, print, and put the table into a page where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each picture is packed")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    photographs = measure([picture(name, enlarged) for name, enlarged in PHOTOGRAPHS.items()], given.runs)
    others = {
        shown_name: {level: packed(picture(name), level, given.runs) for level in LEVELS}
        for name, shown_name in OTHERS.items()
    }
    table = as_markdown(photographs, others)
    print(table)  # noqa: T201
    if given.markdown:
        write_figures(given.markdown, table, SCRIPT)
    if given.json:
        told = {level: [asdict(one) for one in several] for level, several in photographs.items()}
        given.json.write_text(json.dumps({"versions": versions(PACKAGES), "photographs": told}, indent=2))


if __name__ == "__main__":
    main()
