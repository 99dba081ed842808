"""The real engine, made from the settings, the library and ``config.txt``; torch is loaded when it is, not before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from fooocus_core.library import FileHashes, Library
from fooocus_core.masks.models import MaskModels
from fooocus_core.model_files.catalogue import Shelves
from fooocus_core.model_files.supply import Fetching, Supply
from fooocus_core.plan import Models
from fooocus_core.presets.config_file import WILDCARDS_KEY, Config
from fooocus_core.presets.preset import NO_CONFIG, Preset
from fooocus_core.prompts.styles import load_styles
from fooocus_core.prompts.wildcards import BUNDLED_FOLDER, Wildcards
from fooocus_core.resolve import choose_checkpoint
from fooocusapi.images.stores import kept_pictures
from fooocusapi.jobs.worker import Engine
from fooocusapi.settings import Settings
from fooocusapi.shelves import catalogue_of, shelves_of

if TYPE_CHECKING:
    import torch

    from fooocus_core.models.device import Placement
    from fooocus_core.models.loaded import ModelStore
    from fooocus_core.stages.start import Pictures

logger = logging.getLogger(__name__)

EngineMaker = Callable[[Settings, Library, Preset], Engine]


def make_core_engine(
    settings: Settings,
    library: Library,
    preset: Preset,
    config: Config = NO_CONFIG,
    masks: MaskModels | None = None,
    pictures: Pictures | None = None,
) -> Engine:
    """The real engine, with the preset's checkpoint loaded so that the first job need not wait for it.

    ``masks``: the networks that find masks, which it shares with the endpoint for them. ``pictures``: where those are
    that plans name; ``None``: where requests' own are kept.
    """
    import torch

    from fooocus_core.engine import Engine as CoreEngine
    from fooocus_core.filter.content_filter import ContentFilter
    from fooocus_core.prompts.expansion import PromptExpansion
    from fooocus_core.sampling.shortcuts import Shortcuts

    if settings.cpu_threads:
        torch.set_num_threads(settings.cpu_threads)
    placement = _placement(settings)
    models = _model_store(settings, library, placement)
    logger.info("engine on %s, vram %s", placement.device, settings.vram)
    _load_ahead(models, preset, library)
    shelves = shelves_of(settings, library, config)
    return CoreEngine(
        models,
        load_styles(settings.styles_path),
        load_wildcards(settings, config),
        PromptExpansion(shelves.expansion, placement.device, stays=placement.residence.helpers_stay),
        Supply(catalogue_of(settings, config), _fetching(settings, shelves)),
        pictures or kept_pictures(settings).read,
        ContentFilter(library, placement.home),
        masks,
        settings.pictures_at_once,
        Shortcuts(settings.guidance_until, settings.whole_pass_every),
    )


def home_device(settings: Settings) -> torch.device:
    """Where networks beside the engine's own run, if they do not stay on the CPU; loads torch."""
    return _placement(settings).home


def load_wildcards(settings: Settings, config: Config) -> Wildcards:
    """The user's word lists, those of the folder that ``config.txt`` names, and the bundled ones."""
    return Wildcards([settings.wildcards_path, *config.folders(WILDCARDS_KEY), BUNDLED_FOLDER])


def _placement(settings: Settings) -> Placement:
    """Where networks run; loads torch."""
    from fooocus_core.models.device import choose_placement

    return choose_placement(
        settings.device,
        index=settings.gpu_device_id,
        precision=settings.precision,
        autoencoder_precision=settings.vae_precision,
        vram=settings.vram,
    )


def _model_store(settings: Settings, library: Library, placement: Placement) -> ModelStore:
    """Nothing is loaded yet. Hashes and compiled code lie beside the models, for the next start."""
    from fooocus_core.models.compiled import compiler_for
    from fooocus_core.models.loaded import ModelStore

    return ModelStore(
        library,
        placement,
        FileHashes(settings.models_root / "hash_cache.txt"),
        compiler_for(settings.compile, placement.device, settings.models_root / "compiled"),
    )


def _load_ahead(models: ModelStore, preset: Preset, library: Library) -> None:
    """What cannot be loaded now is no reason not to start: the job that wants it will say what is wrong."""
    try:
        vae = library.find("vae", preset.vae) if preset.vae else None
        models.load(Models(choose_checkpoint(None, preset, library), vae))
    except Exception:
        logger.exception("the default checkpoint could not be loaded ahead")


def _fetching(settings: Settings, shelves: Shelves) -> Fetching | None:
    """How missing files are got by the engine, if the user lets it."""
    if not settings.auto_download:
        return None
    import httpx

    from fooocusapi.download import Downloader

    return Fetching(shelves, Downloader(httpx.Client(), mirror=settings.hf_mirror))
