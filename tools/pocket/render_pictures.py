"""Renders the picture set: one RGBA picture for every name and style, from packages that carry icon files.

The npm packages named in ``STYLE_PACKAGES`` and ``emojibase-data`` must lie in one ``node_modules`` folder
(``npm install`` of ``PACKAGES``). Nothing is fetched here.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

logger = logging.getLogger(__name__)

STYLE_PACKAGES: Final = {
    "3d": "@lobehub/fluent-emoji-3d",
    "flat": "@iconify-json/fluent-emoji-flat",
    "cartoon": "@iconify-json/noto",
    "gradient": "@iconify-json/fluent-emoji",
    "line": "@iconify-json/fluent-emoji-high-contrast",
}
PACKAGES: Final = (*STYLE_PACKAGES.values(), "emojibase-data")


@dataclass(frozen=True)
class Picture:
    """What one picture shows: the style, the spoken names (the first one is the name) and descriptive tags."""

    style: str
    names: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class PictureSet:
    """``pixels`` is uint8 of shape [count, side, side, 4] with straight (not premultiplied) alpha."""

    pixels: NDArray[np.uint8]
    pictures: tuple[Picture, ...]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "pictures.npy", self.pixels)
        (folder / "pictures.json").write_text(json.dumps([asdict(picture) for picture in self.pictures]))

    @classmethod
    def load(cls, folder: Path) -> PictureSet:
        entries = json.loads((folder / "pictures.json").read_text())
        pictures = tuple(Picture(entry["style"], tuple(entry["names"]), tuple(entry["tags"])) for entry in entries)
        return cls(np.load(folder / "pictures.npy"), pictures)


def icon_slug(label: str) -> str:
    """The icon sets' spelling of a label: ``Lady Beetle's`` becomes ``lady-beetles``."""
    plain = "".join(c for c in unicodedata.normalize("NFD", label.lower()) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"[\u2019']", "", plain)).strip("-")


def read_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads ``label`` or ``label: name, other name`` lines; ``#`` starts a comment line."""
    names: dict[str, tuple[str, ...]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        label, _, spoken = line.partition(":")
        words = tuple(word.strip().lower() for word in spoken.split(",") if word.strip())
        names[label.strip()] = words or (label.strip().lower(),)
    return names


def fit_square(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """Centres a picture on a transparent square and resizes it with premultiplied alpha."""
    longest = max(picture.size)
    square = Image.new("RGBA", (longest, longest), (255, 255, 255, 0))
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    small = square.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    return np.asarray(small)


def render_icon(icons: dict[str, Any], slug: str, side: int) -> NDArray[np.uint8] | None:
    """Renders one icon of an iconify collection; None if the collection has no such icon."""
    parent = icons.get("aliases", {}).get(slug, {}).get("parent", slug)
    icon = icons["icons"].get(parent)
    if icon is None:
        return None
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    left, top, width, height = (icon.get(key, icons.get(key, default)) for key, default in defaults.items())
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{2 * side}" height="{2 * side}" color="#222">'
        f"{icon['body']}</svg>"
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=2 * side, height=2 * side, skip_system_fonts=True))
    return fit_square(Image.open(io.BytesIO(png)).convert("RGBA"), side)


def render_set(node_modules: Path, names: dict[str, tuple[str, ...]], styles: list[str], side: int) -> PictureSet:
    """Renders every name in every style that has it; pictures come in the order of the names."""
    entries = json.loads((node_modules / "emojibase-data/en/data.json").read_text(encoding="utf-8"))
    by_label = {entry["label"]: entry for entry in entries}
    collections = {
        style: json.loads((node_modules / STYLE_PACKAGES[style] / "icons.json").read_text(encoding="utf-8"))
        for style in styles
        if style != "3d"
    }
    assets = node_modules / STYLE_PACKAGES["3d"] / "assets"
    files = {path.stem.replace("-fe0f", ""): path for path in assets.glob("*.webp")}
    pixels: list[NDArray[np.uint8]] = []
    pictures: list[Picture] = []
    for label, spoken in names.items():
        entry = by_label[label]
        for style in styles:
            if style == "3d":
                path = files.get(entry["hexcode"].lower().replace("-fe0f", ""))
                rendered = fit_square(Image.open(path).convert("RGBA"), side) if path else None
            else:
                rendered = render_icon(collections[style], icon_slug(label), side)
            if rendered is None:
                logger.warning("no picture of %r in style %r", label, style)
                continue
            pixels.append(rendered)
            pictures.append(Picture(style, spoken, tuple(entry.get("tags", []))))
    return PictureSet(np.stack(pixels), tuple(pictures))


def contact_sheet(pixels: NDArray[np.uint8], columns: int, gap: int = 2) -> Image.Image:
    """Lays uint8 RGB pictures [count, height, width, 3] out in rows on white."""
    count, height, width, _ = pixels.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for index, picture in enumerate(pixels):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-modules", type=Path, required=True)
    parser.add_argument("--names", type=Path, default=Path(__file__).with_name("names.txt"))
    parser.add_argument("--styles", nargs="+", default=["3d", "flat", "cartoon"], choices=list(STYLE_PACKAGES))
    parser.add_argument("--side", type=int, default=128, help="picture side in pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures.npy and pictures.json")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = read_names(arguments.names)
    picture_set = render_set(arguments.node_modules, names, arguments.styles, arguments.side)
    picture_set.save(arguments.out)
    logger.info("%d pictures of %d names", len(picture_set.pictures), len(names))


if __name__ == "__main__":
    main()
