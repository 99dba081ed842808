"""Trains the pocket model from rendered pictures to a single-file checkpoint: one command.

Example: ``python -m tools.pocket.train --node-modules DIR --work-dir DIR --vae-minutes 60 --minutes 120``.
The pictures are rendered first if they are not there yet. A finished autoencoder in the work folder is used again;
``--start-from WORK_DIR/denoiser.pt`` goes on from the averaged weights, which are saved every minute.
The first half hour or more at two thirds of the side (``--first-minutes``) teaches names and shapes at twice the speed.
With a GPU: ``--device cuda --workers 1 --side 128 --scenes 512 --styles 3d flat cartoon gradient line``.
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
from tools.pocket.render_pictures import STYLE_PACKAGES, PictureSet, read_names, render_set
from tools.pocket.tokenizer import Vocabulary
from tools.pocket.train_autoencoder import refine_decoder, train_autoencoder
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
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--node-modules", type=Path, help="installed picture packages; needed if nothing is rendered")
    parser.add_argument("--pictures", type=Path, help="folder of render_pictures.py; WORK_DIR/pictures if not given")
    parser.add_argument("--names", type=Path, default=Path(__file__).with_name("names.txt"))
    parser.add_argument("--styles", nargs="+", default=["3d", "flat", "cartoon"], choices=list(STYLE_PACKAGES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--scenes", type=int, default=16, help="different scenes a step and worker")
    parser.add_argument("--out", type=Path, default=Path("fooocus_core/pocket/pocket.safetensors"))
    parser.add_argument("--side", type=int, default=96, help="native side in pixels, a multiple of 8")
    parser.add_argument("--vocabulary", type=int, default=2600)
    parser.add_argument("--vae-minutes", type=float, default=60)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--first-minutes", type=float, default=0, help="of these, at two thirds of the side")
    parser.add_argument("--decoder-minutes", type=float, default=12, help="for the decoder alone, at the end")
    parser.add_argument("--threads", type=int, default=2, help="threads for the autoencoder")
    parser.add_argument("--workers", type=int, default=2, help="single-threaded processes for the denoiser")
    parser.add_argument("--unet-channels", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--unet-depths", type=int, nargs=3, default=[0, 1, 1])
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--peak-rate", type=float, default=1.3e-3, help="of learning; half of it when going on")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    pictures = arguments.pictures or arguments.work_dir / "pictures"
    if not (pictures / "pictures.json").exists():
        if arguments.node_modules is None:
            parser.error("there are no pictures yet: --node-modules says where the packages are")
        render_set(arguments.node_modules, read_names(arguments.names), arguments.styles, 128).save(pictures)
    picture_set = PictureSet.load(pictures)
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
        train_autoencoder(
            vae,
            picture_set,
            arguments.side,
            arguments.vae_minutes * 60,
            arguments.work_dir / "vae.pt",
            arguments.device,
        )
        torch.save(vae.state_dict(), finished)
    vae.load_state_dict(torch.load(finished, weights_only=True))
    start = arguments.start_from
    for side, minutes in (
        (8 * round(arguments.side / 12), arguments.first_minutes),
        (arguments.side, arguments.minutes - arguments.first_minutes),
    ):
        if minutes > 0:
            plan = DenoiserPlan(
                side, minutes * 60, arguments.scenes, device=arguments.device, peak_rate=arguments.peak_rate
            )
            model = train_denoiser(shape, arguments.work_dir, pictures, plan, arguments.workers, start)
            start = arguments.work_dir / "denoiser.pt"
    if arguments.decoder_minutes > 0:
        refined = arguments.work_dir / "vae-refined.pt"
        seconds = arguments.decoder_minutes * 60
        refine_decoder(vae, picture_set, arguments.side, seconds, refined, arguments.device)
    shown = [plain_scene(picture) for picture in range(0, len(picture_set.pictures), 14)]
    latents = encode_scenes(vae, picture_set, arguments.side, arguments.side, shown, random.Random(3)).latents
    size = export_checkpoint(arguments.out, model, vae, vocabulary, arguments.side**2, latents)
    logger.info("%s: %d bytes", arguments.out, size)


if __name__ == "__main__":
    main()
