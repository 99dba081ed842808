"""diffusers' ``StableDiffusionXLPipeline`` on the same weight file, measured as the server is.

The sizes of the networks are read off the file's tensors; translating the keys, loading, text encoding, sampling and
decoding are diffusers' own. ``benchmarks/run.py`` runs this as a process of its own and reads its one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.timing import Figures, median_seconds, peak_memory_mb
from fooocus_core.conditioning.adm import SIZE_WIDTH
from fooocus_core.conditioning.tokenizer import stock_vocabulary
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.autoencoder import autoencoder_shape, renamed_weights
from fooocus_core.models.checkpoint import (
    SIDECAR_KEY,
    TEXT_G_PREFIX,
    TEXT_L_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    Checkpoint,
    open_checkpoint,
    prediction_of,
)
from fooocus_core.models.device import DeviceName, Placement, choose_placement
from fooocus_core.models.loaded import LATENT_SCALE, load_bundled_upscaler
from fooocus_core.models.sidecar import read_sidecar
from fooocus_core.models.text_encoders import HEAD_WIDTH as TEXT_HEAD_WIDTH
from fooocus_core.models.text_encoders import open_clip_renamed, text_shape
from fooocus_core.models.unet import HEAD_WIDTH, UNetShape, unet_shape
from fooocus_core.models.upscaler import Upscaler, as_picture
from fooocus_core.presets.sizes import Size, parse_size
from fooocus_core.stages.native_size import sampled_size

PROMPT = "a red apple"
GUIDANCE_SCALE = 4.0
SEED = 7

Config = dict[str, Any]
Picture = NDArray[np.uint8]
Pipeline = Any
"""A ``StableDiffusionXLPipeline``, whose class says nothing of its parts."""


# --- the pipeline -------------------------------------------------------------------------------------------------


def load_pipeline(path: Path, placement: Placement) -> Pipeline:
    """The pipeline of a single file of SDXL's layout, offline, on the server's device and in its precision.

    Raises the core's errors for a file that it cannot open or whose sizes it cannot read.
    """
    checkpoint = open_checkpoint(path)
    with tempfile.TemporaryDirectory() as folder:
        write_configs(checkpoint, Path(folder))
        pipeline: Pipeline = StableDiffusionXLPipeline.from_single_file(
            str(path),
            config=folder,
            local_files_only=True,
            torch_dtype=placement.network,
            scheduler=scheduler(checkpoint),
            tokenizer=tokenizer(checkpoint, pad="<|endoftext|>"),
            tokenizer_2=tokenizer(checkpoint, pad="!"),
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(placement.device)


def scheduler(checkpoint: Checkpoint) -> DPMSolverMultistepScheduler:
    """diffusers' form of the default sampler, DPM++ 2M SDE on Karras' noise levels: one network call a step."""
    return DPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        algorithm_type="sde-dpmsolver++",
        use_karras_sigmas=True,
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction_of(checkpoint)],
    )


def tokenizer(checkpoint: Checkpoint, pad: str) -> CLIPTokenizer:
    """transformers' tokenizer over the file's own vocabulary, or the stock one."""
    own = json.loads(checkpoint.metadata.get(SIDECAR_KEY, "{}")).get("tokenizer")
    vocabulary: Any
    merges: Any  # pairs, as the class reads them from files; its annotation knows joined texts only
    if own is None:
        vocabulary, merges = stock_vocabulary()
    else:
        vocabulary, merges = own["vocab"], [tuple(merge.split(" ")) for merge in own["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)


# --- configurations -----------------------------------------------------------------------------------------------


def write_configs(checkpoint: Checkpoint, folder: Path) -> None:
    """The folder of configurations that ``from_single_file`` would otherwise look up online."""
    weights_l = checkpoint.under(TEXT_L_PREFIX)
    weights_g = open_clip_renamed(checkpoint.under(TEXT_G_PREFIX))
    _write(folder / "model_index.json", _model_index())
    _write(folder / "unet" / "config.json", unet_config(checkpoint))
    _write(folder / "vae" / "config.json", autoencoder_config(checkpoint))
    _write(folder / "text_encoder" / "config.json", text_config(weights_l, checkpoint.name, "quick_gelu"))
    _write(folder / "text_encoder_2" / "config.json", text_config(weights_g, checkpoint.name, "gelu"))


def _model_index() -> Config:
    return {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": diffusers.__version__,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "force_zeros_for_empty_prompt": False,
    }


def unet_config(checkpoint: Checkpoint) -> Config:
    """SDXL's network with the file's sizes. Raises ``UnsupportedModel`` for what diffusers cannot convert."""
    shape = unet_shape(checkpoint.under(UNET_PREFIX), checkpoint.name)
    if not _is_regular(shape):
        raise UnsupportedModel(checkpoint.name, "diffusers converts only networks with one depth for each level")
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "block_out_channels": shape.channels,
        "layers_per_block": len(shape.down_depths[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if any(d) else "DownBlock2D" for d in shape.down_depths],
        "up_block_types": ["CrossAttnUpBlock2D" if any(d) else "UpBlock2D" for d in shape.up_depths],
        "transformer_layers_per_block": [max(1, depths[0]) for depths in shape.down_depths],
        # diffusers calls the number of heads "attention_head_dim" here, for historical reasons
        "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in shape.channels],
        "cross_attention_dim": shape.context_width,
        "use_linear_projection": shape.linear_projections,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_WIDTH,
        "projection_class_embeddings_input_dim": shape.adm_width,
    }


def _is_regular(shape: UNetShape) -> bool:
    """One depth for each level, the same up as down, and the deepest level's in the middle.

    diffusers loads what fits and leaves the rest as it was initialised: another shape would pass unseen.
    """
    down = [set(level) for level in shape.down_depths]
    up = [set(level) for level in reversed(shape.up_depths)]
    return down == up and {len(level) for level in down} == {1} and down[-1] == {shape.middle_depth}


def autoencoder_config(checkpoint: Checkpoint) -> Config:
    """The autoencoder with the file's widths, scaled as SDXL's."""
    shape = autoencoder_shape(renamed_weights(checkpoint.under(VAE_PREFIX)), checkpoint.name)
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": shape.channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(shape.channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(shape.channels),
        "layers_per_block": shape.blocks,
        "latent_channels": shape.latent_channels,
        "scaling_factor": LATENT_SCALE,
    }


def text_config(weights: Mapping[str, Tensor], name: str, activation: str) -> Config:
    """One text encoder, from its tensors in transformers' names."""
    shape = text_shape(weights, name)
    return {
        "model_type": "clip_text_model",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner_width,
        "projection_dim": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": max(1, shape.width // TEXT_HEAD_WIDTH),
        "max_position_embeddings": shape.positions,
        "hidden_act": activation,
        "bos_token_id": shape.vocabulary - 2,
        "eos_token_id": shape.vocabulary - 1,
    }


def _write(path: Path, config: Config) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config), encoding="utf-8")


# --- figures ------------------------------------------------------------------------------------------------------


def render(pipeline: Pipeline, size: Size, steps: int, text: str = PROMPT) -> Tensor:
    """One picture as pixels ``[1, 3, height, width]`` in ``[0, 1]``."""
    pixels: Tensor = pipeline(
        text,
        negative_prompt="",
        width=size.width_px,
        height=size.height_px,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE_SCALE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="pt",
    ).images
    return pixels


def picture(pipeline: Pipeline, size: Size, steps: int, text: str = PROMPT) -> Picture:
    """One picture as it was sampled."""
    return as_picture(render(pipeline, size, steps, text))


def enlarged_picture(pipeline: Pipeline, sampled: Size, steps: int, upscaler: Upscaler, size: Size) -> Picture:
    """One picture brought to its size by the server's own network, so that both sides do the same."""
    return upscaler.enlarge_to(render(pipeline, sampled, steps), *size)


def measure(path: Path, device: DeviceName, size: Size, steps: int, runs: int, started_s: float) -> Figures:
    """The peer's share of the figures. ``started_s`` is when its process was started, on the wall clock."""
    placement = choose_placement(device)
    pipeline = load_pipeline(path, placement)
    sampled = sampled_size(size, read_sidecar(open_checkpoint(path)).native_area_px)
    as_asked: Callable[[], Picture] = partial(picture, pipeline, sampled, steps)
    if sampled != size:
        as_asked = partial(enlarged_picture, pipeline, sampled, steps, load_bundled_upscaler(placement), size)
    as_asked()
    return Figures(
        first_picture_s=time.time() - started_s,
        picture_s=median_seconds(as_asked, runs),
        sampled_picture_s=median_seconds(partial(picture, pipeline, sampled, steps), runs) if sampled != size else None,
        peak_memory_mb=peak_memory_mb("self"),
    )


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--size", type=parse_size, required=True, metavar="WIDTH*HEIGHT")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument(
        "--started-s", type=float, required=True, help="when this process was started, $(date +%%s.%%N)"
    )
    given = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    figures = measure(given.checkpoint, given.device, given.size, given.steps, given.runs, given.started_s)
    print(json.dumps(figures.to_json()))  # noqa: T201 - the process's answer


if __name__ == "__main__":
    main()
