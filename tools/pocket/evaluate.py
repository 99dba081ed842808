"""Scores a checkpoint: is the training picture nearest to what it draws a picture of the asked name?

A small classifier is trained on the picture set; its last features, by cosine, say which training picture is nearest.
The same measure of the autoencoder's own reconstructions is the ceiling that the denoiser cannot pass.

Example: ``python -m tools.pocket.evaluate --pictures DIR --checkpoint FILE --out DIR``.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tools.pocket.captions import STYLE_WORDS
from tools.pocket.render_pictures import Picture, PictureSet, contact_sheet
from tools.pocket.sample import PocketModel
from tools.pocket.train_denoiser import held_out

logger = logging.getLogger(__name__)

CLASSIFIER_SIDE: Final = 48
FEATURES: Final = 128


class NameClassifier(nn.Module):
    """A small convolutional network from 48x48 pictures to names; ``features`` are unit vectors."""

    def __init__(self, names: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for channels in (32, 64, 96, FEATURES):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
            width = channels
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(FEATURES * 9, FEATURES))
        self.names = nn.Parameter(0.1 * torch.randn(names, FEATURES))

    def features(self, pictures: Tensor) -> Tensor:
        """Unit vectors [n, 128] of pictures [n, 3, 48, 48] in -1..1."""
        return functional.normalize(self.body(pictures), dim=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores [n, names]."""
        return 16 * self.features(pictures) @ functional.normalize(self.names, dim=1).T


def on_white(pixels: NDArray[np.uint8], side: int, scale: float = 0.92) -> Tensor:
    """RGBA pictures [n, s, s, 4] in the middle of white squares: [n, 3, side, side] in -1..1."""
    rows = []
    inner = round(side * scale)
    for picture in pixels:
        icon = Image.fromarray(picture).convert("RGBa")
        small = icon.resize((inner, inner), Image.Resampling.LANCZOS).convert("RGBA")
        canvas = Image.new("RGB", (side, side), (255, 255, 255))
        canvas.paste(small, ((side - inner) // 2, (side - inner) // 2), small)
        rows.append(np.asarray(canvas))
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1


def disturbed(pictures: Tensor) -> Tensor:
    """Random shifts, sizes, blur, noise and colour changes, of the kind that an autoencoder makes."""
    count = len(pictures)
    scale = 1 + 0.15 * (2 * torch.rand(count) - 1)
    shift = 0.12 * (2 * torch.rand(count, 2) - 1)
    rotation = 0.12 * torch.randn(count)
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = transform[:, 1, 1] = scale * rotation.cos()
    transform[:, 0, 1], transform[:, 1, 0] = scale * rotation.sin(), -scale * rotation.sin()
    transform[:, :, 2] = shift
    grid = functional.affine_grid(transform, list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    blurred = functional.avg_pool2d(functional.pad(moved, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    mixed = torch.lerp(moved, blurred, torch.rand(count, 1, 1, 1))
    gain, offset = 1 + 0.15 * torch.randn(count, 3, 1, 1), 0.08 * torch.randn(count, 3, 1, 1)
    return mixed * gain + offset + 0.08 * torch.rand(count, 1, 1, 1) * torch.randn_like(mixed)


def train_classifier(pictures: Tensor, labels: Tensor, seconds: float) -> NameClassifier:
    """Trains for ``seconds`` of wall time on disturbed pictures."""
    classifier = NameClassifier(int(labels.max()) + 1)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2)
    started, step = time.monotonic(), 0
    while (progress := (time.monotonic() - started) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - progress) + 1e-5
        chosen = torch.randint(len(pictures), (96,))
        loss = functional.cross_entropy(classifier(disturbed(pictures[chosen])), labels[chosen], label_smoothing=0.05)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        step += 1
    logger.info("classifier: %d steps, loss %.3f", step, float(loss.detach()))
    return classifier.eval()


@torch.inference_mode()
def nearest(classifier: NameClassifier, drawn: Tensor, pictures: Tensor) -> Tensor:
    """Index of the training picture nearest to each drawn one."""
    small = functional.interpolate(drawn, size=(CLASSIFIER_SIDE, CLASSIFIER_SIDE), mode="area")
    return (classifier.features(small) @ classifier.features(pictures).T).argmax(dim=1)


def prompt_of(picture: Picture) -> str:
    """The plain prompt that asks for a picture."""
    return f"{picture.name}, {STYLE_WORDS[picture.style][0]}"


def to_sheet(pictures: Tensor, columns: int) -> Image.Image:
    """Contact sheet of pictures [n, 3, h, w] in -1..1."""
    pixels = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return contact_sheet(pixels, columns)


def draw_many(
    model: PocketModel, prompts: list[str], seeds: list[int], side: int, steps: int, guidance: float
) -> Tensor:
    """Square pictures in batches of 20."""
    starts = range(0, len(prompts), 20)
    return torch.cat(
        [model.draw(prompts[i : i + 20], seeds[i : i + 20], side, side, steps, guidance) for i in starts]
    )


def mean_colours(pictures: Tensor) -> Tensor:
    """Mean colour of everything that is not white, 0..255, [n, 3]."""
    levels = (pictures + 1) * 127.5
    thing = (levels.amin(dim=1, keepdim=True) < 235).float()
    return (levels * thing).sum((2, 3)) / thing.sum((2, 3)).clamp(min=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of render_pictures.py")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for contact sheets and score.json")
    parser.add_argument("--classifier-seconds", type=float, default=150)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=5.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    picture_set = PictureSet.load(arguments.pictures)
    names = sorted({picture.name for picture in picture_set.pictures})
    labels = torch.tensor([names.index(picture.name) for picture in picture_set.pictures])
    known = on_white(picture_set.pixels, CLASSIFIER_SIDE)
    classifier_path = arguments.out / "classifier.pt"
    if classifier_path.exists():
        classifier = NameClassifier(len(names)).eval()
        classifier.load_state_dict(torch.load(classifier_path, weights_only=True))
    else:
        classifier = train_classifier(known, labels, arguments.classifier_seconds)
        torch.save(classifier.state_dict(), classifier_path)

    model = PocketModel(arguments.checkpoint)
    side = 8 * round(model.sidecar["native_area_px"] ** 0.5 / 8)
    chosen_names = random.Random(0).sample(names, min(arguments.count, len(names)))
    rng = random.Random(1)
    hidden = held_out(picture_set.pictures)
    shown = [(index, picture.name) for index, picture in enumerate(picture_set.pictures) if index not in hidden]
    asked = [rng.choice([index for index, known_name in shown if known_name == name]) for name in chosen_names]
    truth = on_white(picture_set.pixels[asked], side)
    with torch.inference_mode():
        rebuilt = torch.cat([model.vae.decode(model.vae.encode(part)[0]) for part in truth.split(16)]).clamp(-1, 1)
    ceiling = float((labels[nearest(classifier, rebuilt, known)] == labels[asked]).float().mean())

    prompts = [prompt_of(picture_set.pictures[i]) for i in asked]
    score: dict[str, float] = {"autoencoder_ceiling": ceiling}
    hits = []
    for seed in range(arguments.seeds):
        drawn = draw_many(model, prompts, [1000 * seed + i for i in range(len(asked))], side, arguments.steps,
                          arguments.guidance)
        found = nearest(classifier, drawn, known)
        hits.append(labels[found] == labels[asked])
        same_style = [picture_set.pictures[int(j)].style == picture_set.pictures[i].style
                      for i, j in zip(asked, found, strict=True)]
        score[f"style_seed_{seed}"] = sum(same_style) / len(same_style)
        score[f"colour_error_seed_{seed}"] = float((mean_colours(drawn) - mean_colours(truth)).abs().mean())
        to_sheet(torch.cat([torch.stack([t, d]) for t, d in zip(truth[:60], drawn[:60], strict=True)]), 12).save(
            arguments.out / f"seed-{seed}.png"
        )
    hidden_order = sorted(hidden)
    hidden_truth = on_white(picture_set.pixels[hidden_order], side)
    hidden_prompts = [prompt_of(picture_set.pictures[i]) for i in hidden_order]
    hidden_drawn = draw_many(model, hidden_prompts, hidden_order, side, arguments.steps, arguments.guidance)
    hidden_hits = labels[nearest(classifier, hidden_drawn, known)] == labels[hidden_order]
    score["held_out_name"] = float(hidden_hits.float().mean())
    pairs = [torch.stack(pair) for pair in zip(hidden_truth, hidden_drawn, strict=True)]
    to_sheet(torch.cat(pairs), 10).save(arguments.out / "held-out.png")
    score["name"] = float(torch.cat(hits).float().mean())
    (arguments.out / "score.json").write_text(json.dumps(score, indent=1))
    always = [prompt for prompt, *found in zip(prompts, *hits, strict=True) if all(found)]
    logger.info("%s\nright with every seed: %s", json.dumps(score, indent=1), "; ".join(always))


if __name__ == "__main__":
    main()
