"""The pictures of docs/gallery: every way to send a picture, with the model that ships, over HTTP as any client.

python -m tools.gallery docs/gallery
"""

from __future__ import annotations

import argparse
import base64
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from PIL import Image, ImageDraw

from fooocusapi.demo import running_server

SHOWN_PX = 224
GAP_PX, LABEL_PX = 12, 22
COLUMNS = 5
SIDE_PX = 512
SCENE = {"prompt": "a tree", "image_seed": 2}
MASKS = {"corner": (12, 300, 192, 480), "crown": (150, 60, 362, 340), "tree": (100, 30, 420, 500)}
"""What is white: beside the tree, in it, and all of it."""


@dataclass(frozen=True)
class Exhibit:
    """One request and what it is called. ``images`` are fields that hold the named earlier pictures."""

    name: str
    endpoint: str
    fields: Mapping[str, Any]
    images: Mapping[str, str] = field(default_factory=dict)


def _exhibits() -> Iterator[Exhibit]:
    size = {"aspect_ratios_selection": f"{SIDE_PX}*{SIDE_PX}"}
    yield Exhibit("text to image", "/v1/generation/text-to-image", {**SCENE, **size})
    for method in ("Vary (Subtle)", "Vary (Strong)", "Upscale (1.5x)", "Upscale (2x)", "Upscale (Fast 2x)"):
        fields = {**SCENE, "image_seed": 9, "uov_method": method}
        yield Exhibit(method.lower(), "/v2/generation/image-upscale-vary", fields, {"input_image": "text to image"})
    inpaint = "/v2/generation/image-inpaint-outpaint"
    close = {"image_seed": 3, "advanced_params": {"inpaint_respective_field": 0}}
    for thing in ("a red apple", "a yellow star"):
        yield Exhibit(f"{thing} beside it", inpaint, {"prompt": thing, **close}, _masked("corner"))
    weak = {"prompt": "a red tree", "image_seed": 3, "advanced_params": {"inpaint_strength": 0.7}}
    yield Exhibit("a red tree, strength 0.7", inpaint, weak, _masked("crown"))
    inverted = {"prompt": "a blue background", "image_seed": 3, "advanced_params": {"invert_mask_checkbox": True}}
    yield Exhibit("all but the tree", inpaint, inverted, _masked("tree"))
    picture = {"input_image": "text to image"}
    sides = {"outpaint_selections": ["Left", "Right"]}
    yield Exhibit("outpainted left and right", inpaint, {**SCENE, **sides}, picture)
    distances = {"outpaint_selections": ["Top"], "outpaint_distance_top": 256}
    yield Exhibit("outpainted 256 pixels upwards", inpaint, {**SCENE, **distances}, picture)
    for kind in ("PyraCanny", "CPDS"):
        yield Exhibit(
            f"what {kind} sees",
            "/v2/generation/text-to-image-with-ip",
            {
                **size,
                "image_prompts": [{"cn_img": "text to image", "cn_type": kind}],
                "advanced_params": {"debugging_cn_preprocessor": True},
            },
        )


def main() -> None:
    """Make the pictures and the sheet that shows them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[str, Image.Image] = {}
    pictures = {name: _mask(box) for name, box in MASKS.items()}
    with TemporaryDirectory() as outputs, running_server(Path(outputs), os.environ) as client:
        for exhibit in _exhibits():
            picture = pictures[exhibit.name] = _made(client, exhibit, pictures)
            shown[f"{exhibit.name}, {picture.width} x {picture.height}"] = picture
    _sheet(shown).save(folder / "contact-sheet.png", optimize=True)


def _masked(mask: str) -> dict[str, str]:
    return {"input_image": "text to image", "input_mask": mask}


def _mask(box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("RGB", (SIDE_PX, SIDE_PX))
    ImageDraw.Draw(mask).rectangle(box, fill="white")
    return mask


def _made(client: httpx.Client, exhibit: Exhibit, pictures: Mapping[str, Image.Image]) -> Image.Image:
    body = {**exhibit.fields, **{name: _base64(pictures[of]) for name, of in exhibit.images.items()}}
    for prompt in body.get("image_prompts", []):
        prompt["cn_img"] = _base64(pictures[prompt["cn_img"]])
    [answer, *_] = client.post(exhibit.endpoint, json=body, timeout=600).raise_for_status().json()
    if answer["finish_reason"] != "SUCCESS":
        raise SystemExit(f"{exhibit.name}: {answer}")
    path = httpx.URL(answer["url"]).path
    return Image.open(io.BytesIO(client.get(path).raise_for_status().content)).convert("RGB")


def _base64(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _sheet(pictures: Mapping[str, Image.Image]) -> Image.Image:
    """All pictures under their names, each fitted into a square."""
    rows = -(-len(pictures) // COLUMNS)
    width, height = SHOWN_PX + GAP_PX, SHOWN_PX + GAP_PX + LABEL_PX
    sheet = Image.new("RGB", (COLUMNS * width + GAP_PX, rows * height + GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (name, picture) in enumerate(pictures.items()):
        left, top = GAP_PX + index % COLUMNS * width, GAP_PX + index // COLUMNS * height
        small = picture.copy()
        small.thumbnail((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
        sheet.paste(small, (left + (SHOWN_PX - small.width) // 2, top + (SHOWN_PX - small.height) // 2))
        draw.text((left, top + SHOWN_PX + 2), name, fill="black", font_size=11)
    return sheet


if __name__ == "__main__":
    main()
