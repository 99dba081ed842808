"""Where one server is joined from its parts, and taken apart in the right order."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from fooocus_core.describe.describer import Describer
from fooocus_core.library import Library
from fooocus_core.masks.maker import MaskMaker
from fooocus_core.masks.models import MaskModels
from fooocus_core.model_files.catalogue import ObtainableNames
from fooocus_core.plan import Plan
from fooocus_core.presets.config_file import BLACK_OUT_KEY, OUTPUTS_KEY, Config, read_config
from fooocus_core.presets.preset import Preset
from fooocus_core.presets.sizes import SizeLimits
from fooocus_core.prompts.styles import load_styles
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import resolve_request
from fooocusapi.engine_maker import EngineMaker, home_device, make_core_engine
from fooocusapi.images.inputs import input_images
from fooocusapi.images.kept import KeptPictures, pictures_of
from fooocusapi.images.outputs import remove_unfinished
from fooocusapi.images.stores import PictureStores, picture_stores
from fooocusapi.jobs.caretaker import Caretaker, Pulse
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.outbox import SqlOutbox
from fooocusapi.jobs.queue import JobQueue, Limits
from fooocusapi.jobs.webhooks import Notices, WebhookSender
from fooocusapi.jobs.worker import Engine, Worker
from fooocusapi.presets import named_presets, servers_own, tell_missing
from fooocusapi.services import Resolver, Services
from fooocusapi.settings import Settings, config_variables
from fooocusapi.shelves import catalogue_of, library_of
from fooocusapi.surfaces.notices import composers
from fooocusapi.surfaces.tams.ledger import SURFACE as STAGED
from fooocusapi.surfaces.tams.parts import StagedParts, open_parts

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

SEEDS = 2**63
LET_GO_WITHIN_S = 3.0
"""How long the running job may take for its last step when the server ends."""
FLUSH_WITHIN_S = 2.0
"""How long webhooks may take that wait when the server ends. With the seconds that open connections have, less than
the ten that container systems allow before they kill."""


@dataclass(frozen=True)
class _Basis:
    """What everything is made from, read once."""

    settings: Settings
    """With the outputs folder that counts."""
    config: Config
    library: Library
    names: Library | ObtainableNames
    """Those that requests may use: of what is on disk, and of what can be fetched for them."""
    masks: MaskModels
    describer: Describer
    preset: Preset
    black_out_nsfw: bool


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
        basis = _read_basis(self._settings)
        stores = picture_stores(basis.settings)
        journal = _open_journal(basis.settings)
        webhooks = _webhooks(basis.settings, journal)
        told = composers(stores.outputs, basis.settings)
        queue = _queue(basis.settings, journal, stores, Notices(webhooks, told))
        staged = _staged(basis, queue, stores)
        # It looks into the queue for what it tells, and so is made after it.
        told[STAGED] = staged.callback
        worker = _worker(basis.settings, queue, stores, self._engine_of(basis, stores, staged))
        caretaker = _caretaker(basis, journal, queue, worker)
        self._parts = _Parts(journal, queue, worker, caretaker, webhooks)
        _start(self._parts, stores.kept)
        return _services(basis, stores, staged, self._parts, self.close)

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

    def _engine_of(self, basis: _Basis, stores: PictureStores, staged: StagedParts) -> Callable[[], Engine]:
        """What makes the engine, on whatever thread calls it."""
        make_engine = self._make_engine or partial(
            make_core_engine, config=basis.config, masks=basis.masks, pictures=staged.read(stores.kept.read)
        )
        return partial(make_engine, basis.settings, basis.library, basis.preset)

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


def epoch_ms() -> int:
    """The wall clock, for the journal and its readers."""
    return time.time_ns() // 1_000_000


def _read_basis(given: Settings) -> _Basis:
    """Reads ``config.txt``, folders and presets; writes nothing. Raises ``InvalidRequest`` for an unknown preset."""
    config = read_config(given.config_path, config_variables())
    settings = with_outputs(given, config)
    library = library_of(settings, config)
    catalogue = catalogue_of(settings, config)
    preset = servers_own(settings, library, config)
    tell_missing(preset, library)
    return _Basis(
        settings=settings,
        config=config,
        library=library,
        names=ObtainableNames(library, catalogue) if settings.auto_download else library,
        masks=MaskModels(library, catalogue, partial(home_device, settings)),
        describer=Describer(library, catalogue),
        preset=preset,
        black_out_nsfw=settings.black_out_nsfw or config.is_on(BLACK_OUT_KEY),
    )


def _open_journal(settings: Settings) -> SqlJournal:
    """The journal. Half-written pictures go once it keeps other servers out: until then they might be one's of those.

    Raises ``JournalError``.
    """
    settings.output_path.mkdir(parents=True, exist_ok=True)
    journal = SqlJournal(settings.journal_url)
    remove_unfinished(settings.output_path)
    return journal


def _webhooks(settings: Settings, journal: SqlJournal) -> WebhookSender:
    return WebhookSender(partial(_webhook_client, settings), SqlOutbox(journal.database), key=settings.webhook_key)


def _webhook_client(settings: Settings) -> httpx.AsyncClient:
    """Closed to private networks, without proxies and without what receivers may leave, as for pictures."""
    import httpx

    from fooocusapi.fetch import GuardedTransport, network_transports

    transport = GuardedTransport(network_transports()(), allow_private=settings.webhook_private)
    return httpx.AsyncClient(transport=transport, trust_env=False)


def _queue(settings: Settings, journal: SqlJournal, stores: PictureStores, notices: Notices) -> JobQueue:
    """The queue, and what becomes of a job's pictures and of those who wait for word of it."""
    return JobQueue(
        journal,
        clock=epoch_ms,
        limits=Limits(queue_size=settings.queue_size, history=settings.queue_history),
        delete_files=stores.outputs.delete,
        on_ending=[notices.prepare],
        on_ended=[lambda job: stores.kept.let_go(pictures_of(job.plan)), notices.send],
        on_trimmed=[lambda job: stores.shown.let_go(job.context, journal.mentions)],
    )


def _staged(basis: _Basis, queue: JobQueue, stores: PictureStores) -> StagedParts:
    return open_parts(
        basis.settings,
        queue,
        stores.outputs,
        basis.names,
        basis.preset,
        basis.settings.output_path / "resources",
        black_out_nsfw=basis.black_out_nsfw,
    )


def _worker(settings: Settings, queue: JobQueue, stores: PictureStores, make_engine: Callable[[], Engine]) -> Worker:
    return Worker(
        queue,
        stores.outputs,
        make_engine,
        lambda job: settings.tams_job_limit_s if job.surface == STAGED else inf,
        Pulse(settings.stalled_after_s),
    )


def _caretaker(basis: _Basis, journal: SqlJournal, queue: JobQueue, worker: Worker) -> Caretaker:
    def write_what_is_owed() -> None:
        queue.write_what_is_owed()
        journal.settle()

    return Caretaker(
        worker,
        unload_after_s=basis.settings.unload_after_s,
        unload_others=[basis.masks.unload, basis.describer.unload],
        write_what_is_owed=write_what_is_owed,
    )


def _start(parts: _Parts, kept: KeptPictures) -> None:
    """What the journal holds is queued, and its pictures are counted, before the worker takes the first job."""
    parts.webhooks.start()
    parts.queue.restore()
    kept.keep_only(_pictures_waited_for(parts.queue))
    parts.worker.start()
    parts.caretaker.start()


def _pictures_waited_for(queue: JobQueue) -> list[str]:
    jobs = (queue.get_cached(summary.id) for summary in queue.snapshot().queue)
    return [name for job in jobs if job is not None for name in pictures_of(job.plan)]


def _services(
    basis: _Basis, stores: PictureStores, staged: StagedParts, parts: _Parts, close: Callable[[], None]
) -> Services:
    """What routes work with. Reads certificates and style files."""
    return Services(
        jobs=parts.queue,
        outputs=stores.outputs,
        inputs=input_images(basis.settings, [stores.outputs, stores.shown]),
        kept=stores.kept,
        shown=stores.shown,
        engine=parts.worker,
        masks=MaskMaker(basis.masks),
        describer=basis.describer,
        library=basis.library,
        resolve=_resolver(basis),
        preset=basis.preset,
        presets=named_presets(basis.preset, basis.settings, basis.library, basis.config),
        staged=staged,
        style_names=load_styles(basis.settings.styles_path).names,
        close=close,
    )


def _resolver(basis: _Basis) -> Resolver:
    settings = basis.settings
    sizes = SizeLimits(
        max_side_px=settings.max_side_px,
        max_pixels=settings.max_pixels,
        max_repainted_pixels=settings.max_input_pixels,
    )

    def resolve(request: GenerationRequest, preset: Preset | None = None) -> Plan:
        return resolve_request(
            request,
            preset or basis.preset,
            basis.names,
            lambda: secrets.randbelow(SEEDS),
            sizes,
            settings.max_prompt_characters,
            settings.ip_adapter_weighting,
            basis.black_out_nsfw,
        )

    return resolve
