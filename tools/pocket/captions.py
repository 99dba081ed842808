"""Scenes and captions: where a picture stands, on which colour, and the words that say so."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.pocket.render_pictures import Picture, PictureSet

COLOURS: Final = {
    "red": (225, 60, 55), "orange": (245, 150, 50), "yellow": (250, 215, 70), "green": (80, 175, 90),
    "blue": (65, 125, 225), "purple": (145, 85, 200), "pink": (245, 150, 190), "brown": (140, 95, 65),
    "black": (25, 25, 28), "gray": (150, 150, 152), "light blue": (165, 210, 245), "light green": (185, 230, 175),
}
STYLE_WORDS: Final = {
    "3d": ("3d render", "glossy 3d", "3d icon"),
    "flat": ("flat icon", "flat illustration", "flat"),
    "cartoon": ("cartoon", "cartoon drawing", "cartoon icon"),
    "gradient": ("gradient icon", "soft gradient"),
    "line": ("black line icon", "line art"),
}
UNNAMED_STYLE: Final = "3d"
"""What a prompt without a style word asks for."""
PLACES: Final = {"on the left": (-1.0, 0.0), "on the right": (1.0, 0.0), "at the top": (0.0, -1.0),
                 "at the bottom": (0.0, 1.0)}
PRAISE: Final = (
    "highly detailed", "masterpiece", "best quality", "cinematic", "sharp focus", "beautiful", "dramatic light",
    "intricate", "elegant", "vivid colors", "professional", "8k", "award winning", "still", "emotional", "harmonious",
)
BLAME: Final = (
    "blurry", "low quality", "worst quality", "deformed", "watermark", "text", "signature", "ugly", "noise", "grainy",
    "unrealistic", "saturated", "high contrast", "bad anatomy", "extra limbs", "cropped", "jpeg artifacts", "anime",
    "painting", "drawing", "sketch", "photo", "poorly drawn", "logo", "monochrome", "disfigured",
)


@dataclass(frozen=True)
class Scene:
    """One picture on a canvas. ``scale`` is the share of the canvas's shorter side, ``place`` a key of PLACES."""

    picture: int
    colour: str | None
    place: str | None
    small: bool


def plain_scene(picture: int) -> Scene:
    """The picture large in the middle of white."""
    return Scene(picture, None, None, small=False)


def draw_scene(picture: int, rng: random.Random) -> Scene:
    """A random scene; most stand large in the middle of a coloured or white canvas."""
    return Scene(
        picture=picture,
        colour=rng.choice(list(COLOURS)) if rng.random() < 0.45 else None,
        place=rng.choice(list(PLACES)) if rng.random() < 0.12 else None,
        small=rng.random() < 0.08,
    )


def compose(scene: Scene, picture_set: PictureSet, height_px: int, width_px: int, rng: random.Random) -> Tensor:
    """The scene as RGB in -1..1, [3, height, width]."""
    shorter = min(height_px, width_px)
    side = round(shorter * (0.5 if scene.small else 0.7 if scene.place else rng.uniform(0.88, 0.96)))
    across, down = PLACES[scene.place] if scene.place else (0.0, 0.0)
    left = round((width_px - side) * (0.5 + 0.45 * across) + rng.uniform(-1, 1))
    top = round((height_px - side) * (0.5 + 0.45 * down) + rng.uniform(-1, 1))
    canvas = Image.new("RGBA", (width_px, height_px), (*(COLOURS[scene.colour] if scene.colour else (255,) * 3), 255))
    icon = Image.fromarray(picture_set.pixels[scene.picture]).convert("RGBa")
    layer = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    layer.paste(icon.resize((side, side), Image.Resampling.LANCZOS).convert("RGBA"), (left, top))
    canvas.alpha_composite(layer)
    return torch.from_numpy(np.asarray(canvas.convert("RGB")).copy()).permute(2, 0, 1).float() / 127.5 - 1


def caption(scene: Scene, picture: Picture, rng: random.Random) -> str:
    """One of many ways to say what the scene shows."""
    name = rng.choice(picture.names) if rng.random() < 0.3 else picture.name
    if scene.small:
        name = f"small {name}"
    if rng.random() < 0.5:
        name = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    style = rng.choice(STYLE_WORDS[picture.style])
    text = rng.choice((f"{name}, {style}", f"{style} of {name}", f"{style}, {name}", f"{name}, {style}"))
    if picture.style == UNNAMED_STYLE and rng.random() < 0.5:
        text = name
    details = []
    if scene.colour:
        details.append(rng.choice((f"on a {scene.colour} background", f"{scene.colour} background")))
    elif rng.random() < 0.2:
        details.append("on a white background")
    if scene.place:
        details.append(scene.place)
    if rng.random() < 0.15 and picture.tags:
        details.append(rng.choice(picture.tags))
    if rng.random() < 0.2:
        details += rng.sample(PRAISE, rng.randint(1, 5))
    return ", ".join([text, *details])


def empty_caption(rng: random.Random) -> str:
    """What stands for "nothing asked": empty, or words of the kind that negative prompts hold."""
    return ", ".join(rng.sample(BLAME, rng.randint(2, 9))) if rng.random() < 0.4 else ""
