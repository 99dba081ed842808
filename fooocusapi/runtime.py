"""Where one server is joined from its parts, and taken apart in the right order."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from fooocus_core.describe.describer import Describer
from fooocus_core.library import FileHashes, Library
from fooocus_core.masks.maker import MaskMaker
from fooocus_core.masks.models import MaskModels
from fooocus_core.model_files.catalogue import ObtainableNames, Shelves
from fooocus_core.model_files.supply import Fetching, Supply
from fooocus_core.plan import Models, Plan
from fooocus_core.presets.config_file import BLACK_OUT_KEY, OUTPUTS_KEY, WILDCARDS_KEY, Config, read_config
from fooocus_core.presets.preset import NO_CONFIG, Preset, choose_default_preset, first_on_disk, load_preset
from fooocus_core.presets.sizes import SizeLimits
from fooocus_core.prompts.styles import load_styles
from fooocus_core.prompts.wildcards import BUNDLED_FOLDER, Wildcards
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import NameLookup, choose_checkpoint, resolve_request
from fooocusapi.images.inputs import input_images
from fooocusapi.images.kept import KeptPictures, pictures_of
from fooocusapi.images.outputs import OutputStore, encode_with_core, remove_unfinished
from fooocusapi.images.shown import ShownPictures
from fooocusapi.jobs.caretaker import Caretaker, Pulse
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.outbox import SqlOutbox
from fooocusapi.jobs.queue import JobQueue, Limits
from fooocusapi.jobs.webhooks import Composer, Delivery, Notices, WebhookSender
from fooocusapi.jobs.worker import Engine, Worker
from fooocusapi.presets import NamedPresets
from fooocusapi.services import Resolver, Services
from fooocusapi.settings import Settings, config_variables
from fooocusapi.shelves import catalogue_of, library_of, shelves_of
from fooocusapi.surfaces.classic import render as classic
from fooocusapi.surfaces.classic.translate import SURFACE as CLASSIC
from fooocusapi.surfaces.tams.ledger import SURFACE as STAGED
from fooocusapi.surfaces.tams.parts import open_parts
from fooocusapi.surfaces.unified import render as unified
from fooocusapi.surfaces.unified.translate import SURFACE as UNIFIED

if TYPE_CHECKING:
    import httpx
    import torch

    from fooocus_core.models.device import Placement
    from fooocus_core.models.loaded import ModelStore
    from fooocus_core.stages.start import Pictures

logger = logging.getLogger(__name__)

SEEDS = 2**63
LET_GO_WITHIN_S = 3.0
"""How long the running job may take for its last step when the server ends."""
FLUSH_WITHIN_S = 2.0
"""How long webhooks may take that wait when the server ends. With the seconds that open connections have, less than
the ten that container systems allow before they kill."""

EngineMaker = Callable[[Settings, Library, Preset], Engine]


@dataclass(frozen=True)
class _Parts:
    """What has to be ended."""

    journal: SqlJournal
    queue: JobQueue
    worker: Worker
    caretaker: Caretaker
    webhooks: WebhookSender


class Runtime:
    """The parts of one server between ``open`` and ``close``."""

    def __init__(self, settings: Settings, make_engine: EngineMaker | None = None) -> None:
        """``make_engine`` is called on the worker's thread; the default loads torch there."""
        self._settings = settings
        self._make_engine = make_engine
        self._parts: _Parts | None = None
        self._draining = threading.Lock()
        self._is_drained = False
        self.is_settled = True
        """Whether no thread is left that still works on a job."""

    def open(self) -> Services:
        """Open the journal, queue what it holds, begin to work. Blocks; raises ``JournalError``, ``InvalidRequest``."""
        config = read_config(self._settings.config_path, config_variables())
        settings = with_outputs(self._settings, config)
        library = library_of(settings, config)
        masks = MaskModels(library, catalogue_of(settings, config), partial(_home, settings))
        preset = _preset(settings, library, config)
        _tell_missing(preset, library)
        outputs = OutputStore(
            settings.output_path,
            settings.public_url,
            base64_prefix=not settings.bare_base64,
            encode=partial(encode_with_core, png_level=settings.png_level),
        )
        kept = kept_pictures(settings)
        shown = ShownPictures(settings.output_path / "sent", settings.public_url)
        settings.output_path.mkdir(parents=True, exist_ok=True)
        journal = SqlJournal(settings.journal_url)
        remove_unfinished(settings.output_path)
        webhooks = WebhookSender(
            partial(_webhook_client, settings), SqlOutbox(journal.database), key=settings.webhook_key
        )
        black_out_nsfw = settings.black_out_nsfw or config.is_on(BLACK_OUT_KEY)
        told = composers(outputs, settings)
        notices = Notices(webhooks, told)
        queue = JobQueue(
            journal,
            clock=epoch_ms,
            limits=Limits(queue_size=settings.queue_size, history=settings.queue_history),
            delete_files=outputs.delete,
            on_ending=[notices.prepare],
            on_ended=[
                lambda job: kept.let_go(pictures_of(job.plan)),
                notices.send,
            ],
            on_trimmed=[lambda job: shown.let_go(job.context, journal.mentions)],
        )
        names = _names(settings, library, config)
        staged = open_parts(
            settings,
            queue,
            outputs,
            names,
            preset,
            settings.output_path / "resources",
            black_out_nsfw=black_out_nsfw,
        )
        told[STAGED] = staged.callback
        make_engine = self._make_engine or partial(
            make_core_engine, config=config, masks=masks, pictures=staged.read(kept.read)
        )
        worker = Worker(
            queue,
            outputs,
            lambda: make_engine(settings, library, preset),
            lambda job: settings.tams_job_limit_s if job.surface == STAGED else inf,
            Pulse(settings.stalled_after_s),
        )
        describer = Describer(library, catalogue_of(settings, config))
        caretaker = Caretaker(
            worker,
            unload_after_s=settings.unload_after_s,
            unload_others=[masks.unload, describer.unload],
            write_what_is_owed=queue.write_what_is_owed,
        )
        self._parts = _Parts(journal, queue, worker, caretaker, webhooks)
        webhooks.start()
        queue.restore()
        kept.keep_only(_pictures_waited_for(queue))
        worker.start()
        caretaker.start()
        return Services(
            jobs=queue,
            outputs=outputs,
            inputs=input_images(settings, [outputs, shown]),
            kept=kept,
            shown=shown,
            engine=worker,
            masks=MaskMaker(masks),
            describer=describer,
            library=library,
            resolve=_resolver(
                preset,
                names,
                settings,
                black_out_nsfw=black_out_nsfw,
            ),
            preset=preset,
            presets=_named_presets(preset, settings, library, config),
            staged=staged,
            style_names=load_styles(settings.styles_path).names,
            close=self.close,
        )

    def drain(self) -> None:
        """Take no job any more, put the running one back, let waiting callers go, flush the webhooks.

        The running job ends within a step unless it was given a grace. Blocks for five seconds at most without one.
        The jobs can still be looked up. Once is enough.
        """
        with self._draining:
            if self._parts is not None and not self._is_drained:
                self._drain(self._parts)
                self._is_drained = True

    def close(self) -> None:
        """Drain, if that has not been done, and close the journal."""
        self.drain()
        if self._parts is not None and self.is_settled:
            self._parts.journal.close()

    def _drain(self, parts: _Parts) -> None:
        parts.caretaker.stop()
        self.is_settled = parts.worker.stop(self._settings.shutdown_grace_s, LET_GO_WITHIN_S)
        if not self.is_settled:
            logger.warning("the worker did not stop in time; a job that it was at starts again with the server")
            # Long steps are no crash: written down as put back, they do not use up the job's attempts.
            parts.queue.put_back_running()
        try:
            parts.queue.write_what_is_owed()
        except JournalError:
            logger.error("the journal cannot be written: jobs whose end it does not know run again")
        parts.queue.release_waiters()
        parts.webhooks.close(FLUSH_WITHIN_S)


def with_outputs(settings: Settings, config: Config) -> Settings:
    """The settings with ``config.txt``'s folder for pictures, unless a flag or a variable of ours names one."""
    folder = None if "output_path" in settings.model_fields_set else config.new_folder(OUTPUTS_KEY)
    return settings if folder is None else settings.model_copy(update={"output_path": folder})


def kept_pictures(settings: Settings) -> KeptPictures:
    """The pictures that came with requests, beside those that were made."""
    return KeptPictures(settings.output_path / "inputs")


def _pictures_waited_for(queue: JobQueue) -> list[str]:
    jobs = (queue.get_cached(summary.id) for summary in queue.snapshot().queue)
    return [name for job in jobs if job is not None for name in pictures_of(job.plan)]


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
    from fooocus_core.models.compiled import compiler_for
    from fooocus_core.models.loaded import ModelStore
    from fooocus_core.prompts.expansion import PromptExpansion
    from fooocus_core.sampling.shortcuts import Shortcuts

    if settings.cpu_threads:
        torch.set_num_threads(settings.cpu_threads)
    placement = _placement(settings)
    models = ModelStore(
        library,
        placement,
        FileHashes(settings.models_root / "hash_cache.txt"),
        compiler_for(settings.compile, placement.device, settings.models_root / "compiled"),
    )
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


def _home(settings: Settings) -> torch.device:
    """Where networks beside the engine's own run, if they do not stay on the CPU; loads torch."""
    return _placement(settings).home


def _fetching(settings: Settings, shelves: Shelves) -> Fetching | None:
    """How missing files are got by the engine, if the user lets it."""
    if not settings.auto_download:
        return None
    import httpx

    from fooocusapi.download import Downloader

    return Fetching(shelves, Downloader(httpx.Client(), mirror=settings.hf_mirror))


def load_wildcards(settings: Settings, config: Config) -> Wildcards:
    """The user's word lists, those of the folder that ``config.txt`` names, and the bundled ones."""
    return Wildcards([settings.wildcards_path, *config.folders(WILDCARDS_KEY), BUNDLED_FOLDER])


def _load_ahead(models: ModelStore, preset: Preset, library: Library) -> None:
    """What cannot be loaded now is no reason not to start: the job that wants it will say what is wrong."""
    try:
        vae = library.find("vae", preset.vae) if preset.vae else None
        models.load(Models(choose_checkpoint(None, preset, library), vae))
    except Exception:
        logger.exception("the default checkpoint could not be loaded ahead")


def composers(outputs: OutputStore, settings: Settings) -> dict[str, Composer]:
    """For each dialect but the staged, what it tells of an ended job: to its own address, else to the settings'."""

    def to_its_address(job: Job, body: Mapping[str, Any] | str) -> Delivery | None:
        asked = job.context.get("webhook_url")
        url = asked or settings.webhook_url
        return Delivery(job.id, url, body, is_trusted=not asked) if url else None

    def of_task(job: Job) -> Mapping[str, Any] | str:
        return unified.webhook_body(job, outputs, as_text=settings.task_webhook == "string")

    return {
        CLASSIC: lambda job: to_its_address(job, classic.webhook_body(job, outputs)),
        UNIFIED: lambda job: to_its_address(job, of_task(job)),
    }


def epoch_ms() -> int:
    """The wall clock, for the journal and its readers."""
    return time.time_ns() // 1_000_000


def _webhook_client(settings: Settings) -> httpx.AsyncClient:
    """Closed to private networks, without proxies and without what receivers may leave, as for pictures."""
    import httpx

    from fooocusapi.fetch import GuardedTransport, network_transports

    transport = GuardedTransport(network_transports()(), allow_private=settings.webhook_private)
    return httpx.AsyncClient(transport=transport, trust_env=False)


def _names(settings: Settings, library: Library, config: Config) -> Library | ObtainableNames:
    """The names that requests may use: what is on disk, and what can be fetched for them."""
    return ObtainableNames(library, catalogue_of(settings, config)) if settings.auto_download else library


def _resolver(default: Preset, library: NameLookup, settings: Settings, *, black_out_nsfw: bool) -> Resolver:
    sizes = SizeLimits(
        max_side_px=settings.max_side_px,
        max_pixels=settings.max_pixels,
        max_repainted_pixels=settings.max_input_pixels,
    )

    def resolve(request: GenerationRequest, preset: Preset | None = None) -> Plan:
        return resolve_request(
            request,
            preset or default,
            library,
            lambda: secrets.randbelow(SEEDS),
            sizes,
            settings.max_prompt_characters,
            settings.ip_adapter_weighting,
            black_out_nsfw,
        )

    return resolve


def _preset(settings: Settings, library: Library, config: Config) -> Preset:
    """The one that was asked for, else the one that suits the checkpoints on disk; the user's own files first."""
    if settings.preset:
        return _load_preset(settings.preset, settings, library, config)
    return choose_default_preset(library.checkpoint_names(), [settings.presets_path], config)


def _named_presets(default: Preset, settings: Settings, library: Library, config: Config) -> NamedPresets:
    """Those that a request may name in place of the server's own."""
    return NamedPresets(
        default, lambda name: _load_preset(name, settings, library, config), folders=[settings.presets_path]
    )


def _load_preset(name: str, settings: Settings, library: Library, config: Config) -> Preset:
    return _with_present_checkpoint(load_preset(name, [settings.presets_path], config), library)


def _with_present_checkpoint(preset: Preset, library: Library) -> Preset:
    """The preset with an older checkpoint where only that is on disk: no newer one is fetched then (01, section 12)."""
    present = first_on_disk((preset.checkpoint, *preset.previous_checkpoints), library.checkpoint_names())
    return preset if present is None else replace(preset, checkpoint=present)


def _tell_missing(preset: Preset, library: Library) -> None:
    """The files of the preset that are not on disk, with where they are published; an older checkpoint will do."""
    has_checkpoint = first_on_disk(preset.previous_checkpoints, library.checkpoint_names()) is not None
    for kind, name, url in preset.downloads:
        if first_on_disk([name], library.names(kind)) is None and not (kind == "checkpoints" and has_checkpoint):
            logger.warning(
                "preset %s: %s is not in %s; it is published at %s and fetched by: main.py download %s",
                preset.name,
                name,
                kind,
                url,
                name,
            )
