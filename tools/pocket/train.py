"""Trains the pocket model from rendered pictures to a single-file checkpoint: one command.

Example: ``python -m tools.pocket.train --pictures DIR --work-dir DIR --vae-minutes 60 --minutes 120``.
A finished autoencoder in the work folder is used again; ``--start-from`` continues from averaged denoiser weights.
"""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path

import torch

from tools.pocket.captions import BLAME, COLOURS, PLACES, PRAISE, STYLE_WORDS, caption, draw_scene, plain_scene
from tools.pocket.export import export_checkpoint
from tools.pocket.networks import PocketShape, Vae
from tools.pocket.render_pictures import PictureSet
from tools.pocket.tokenizer import Vocabulary
from tools.pocket.train_autoencoder import train_autoencoder
from tools.pocket.train_denoiser import Denoiser, DenoiserPlan, encode_scenes, train_denoiser

logger = logging.getLogger(__name__)


def caption_texts(picture_set: PictureSet) -> list[str]:
    """Texts that hold every word a caption can hold."""
    rng = random.Random(2)
    texts = [caption(draw_scene(0, rng), picture, rng) for picture in picture_set.pictures for _ in range(6)]
    words = [*COLOURS, *PLACES, *PRAISE, *BLAME, *(word for style in STYLE_WORDS.values() for word in style)]
    names = [name for picture in picture_set.pictures for name in picture.names]
    tags = [tag for picture in picture_set.pictures for tag in picture.tags]
    return texts + 40 * words + 4 * names + tags


def learn_vocabulary(picture_set: PictureSet, path: Path, size: int) -> Vocabulary:
    if not path.exists():
        Vocabulary.learn(caption_texts(picture_set), size).save(path)
    return Vocabulary.load(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of render_pictures.py")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("fooocus_core/pocket/pocket.safetensors"))
    parser.add_argument("--side", type=int, default=96, help="native side in pixels, a multiple of 8")
    parser.add_argument("--vocabulary", type=int, default=2600)
    parser.add_argument("--vae-minutes", type=float, default=60)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2, help="threads for the autoencoder")
    parser.add_argument("--workers", type=int, default=2, help="single-threaded processes for the denoiser")
    parser.add_argument("--unet-channels", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--unet-depths", type=int, nargs=3, default=[0, 1, 1])
    parser.add_argument("--start-from", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    picture_set = PictureSet.load(arguments.pictures)
    vocabulary = learn_vocabulary(picture_set, arguments.work_dir / "vocabulary.json", arguments.vocabulary)
    shape = PocketShape(
        vocabulary.size,
        unet_channels=tuple(arguments.unet_channels),
        unet_depths=tuple(arguments.unet_depths),
    )
    vae, model = Vae(shape), Denoiser(shape)
    logger.info(
        "vocabulary %d, parameters: autoencoder %.2f M, denoiser %.2f M", vocabulary.size,
        *(sum(p.numel() for p in part.parameters()) / 1e6 for part in (vae, model)),
    )
    finished = arguments.work_dir / "vae-finished.pt"
    if not finished.exists():
        train_autoencoder(vae, picture_set, arguments.side, arguments.vae_minutes * 60, arguments.work_dir / "vae.pt")
        torch.save(vae.state_dict(), finished)
    vae.load_state_dict(torch.load(finished, weights_only=True))
    plan = DenoiserPlan(arguments.side, arguments.minutes * 60)
    average = train_denoiser(
        shape, arguments.work_dir, arguments.pictures, plan, arguments.workers, arguments.start_from
    )
    shown = [plain_scene(picture) for picture in range(0, len(picture_set.pictures), 14)]
    latents = encode_scenes(vae, picture_set, arguments.side, arguments.side, shown, random.Random(3)).latents
    size = export_checkpoint(arguments.out, average, vae, vocabulary, arguments.side**2, latents)
    logger.info("%s: %d bytes", arguments.out, size)


if __name__ == "__main__":
    main()
