"""What this dialect works with beside the server's own services, joined from the settings."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anyio import CapacityLimiter

from fooocus_core.errors import MissingPicture
from fooocus_core.presets.preset import Preset
from fooocus_core.presets.sizes import Size
from fooocusapi.images.decode import ImageLimits, UnusableImage, decode_image
from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.jobs.webhooks import Delivery
from fooocusapi.settings import Settings
from fooocusapi.surfaces.tams.authority import Authority, RateLimit, bearer_keys, public_keys
from fooocusapi.surfaces.tams.judge import Judge
from fooocusapi.surfaces.tams.ledger import Ledger
from fooocusapi.surfaces.tams.model_table import ModelTable
from fooocusapi.surfaces.tams.pictures import Read, first_of, picture_name, reading
from fooocusapi.surfaces.tams.render import Renderer
from fooocusapi.surfaces.tams.resources import Resources
from fooocusapi.surfaces.tams.stages import MAX_SEED, FileNames, KnownPicture, Means
from fooocusapi.surfaces.tams.translate import check_sizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RETRIES_AFTER_S = (1.0, 5.0, 25.0)
CALLBACK_TIMEOUT_S = 10.0
ANY_HOST = "*"


@dataclass(frozen=True)
class StagedParts:
    """Everything that the endpoints of this dialect use beside ``Services``."""

    authority: Authority
    rate_limit: RateLimit
    table: ModelTable
    resources: Resources
    decoding: CapacityLimiter
    """Lets one upload at a time be unpacked, or the memory for them adds up."""
    ledger: Ledger
    renderer: Renderer
    library: FileNames
    preset: Preset
    settings: Settings
    black_out_nsfw: bool

    def means(self, application: str) -> Means:
        """What the stages of an application's job are judged by."""
        return Means(
            table=self.table.current(),
            library=self.library,
            preset=self.preset,
            find_picture=lambda resource_id: self._known_picture(application, resource_id),
            draw_seed=lambda: 1 + secrets.randbelow(MAX_SEED),
            max_prompt_characters=self.settings.max_prompt_characters,
            allows_small_steps=self.settings.tams_lenient_sizes,
            parts_floor_px=self.settings.tams_parts_floor_px,
        )

    def read(self, kept: Read) -> Read:
        """The pictures of all plans, with those of this dialect among them."""
        found = first_of(self.resources.pixels, self._finished_pixels)

        def fitting(resource_id: str) -> NDArray[np.uint8]:
            pixels = found(resource_id)
            self._check_start(picture_name(resource_id), Size(pixels.shape[1], pixels.shape[0]))
            return pixels

        return reading(kept, fitting)

    def check_notify_url(self, url: str, judge: Judge) -> None:
        """Notes an address that callbacks must not go to."""
        try:
            scheme, host = urlsplit(url).scheme, _host_of(url)
        except ValueError:
            judge.refuse("notifyUrl", "is no address")
            return
        allowed = self._notify_hosts
        if scheme not in ("http", "https") or not host:
            judge.refuse("notifyUrl", "must begin with http:// or https:// and name a host")
        elif host not in allowed and ANY_HOST not in allowed:
            judge.refuse("notifyUrl", "the host is not one that callbacks may go to")

    def callback(self, job: Job) -> Delivery | None:
        """What is posted of an ended job: the same as ``GET`` answers."""
        asked = job.context.get("webhook_url")
        url = asked or self.settings.webhook_url
        if not url:
            return None
        body = self.renderer.job(job, job.context["base_url"])
        is_trusted = not asked or _host_of(asked) in self._notify_hosts
        return Delivery(job.id, url, body, RETRIES_AFTER_S, CALLBACK_TIMEOUT_S, is_trusted)

    @property
    def _notify_hosts(self) -> list[str]:
        return [entry.strip().lower() for entry in self.settings.tams_notify_hosts.split(",")]

    def _check_start(self, name: str, size: Size) -> None:
        """That every running job that starts from this picture may start from one of this size."""
        for running in self.renderer.unfinished().running:
            if running.plan is not None and running.plan.pictures[:1] == (name,):
                check_sizes(running.plan, size)

    def _known_picture(self, application: str, resource_id: str) -> KnownPicture | None:
        slot = self.resources.find(resource_id, application)
        if slot is not None:
            return KnownPicture(Size(slot.width_px, slot.height_px) if slot.put_ms else None)
        path = self._finished_path(application, resource_id)
        return None if path is None else KnownPicture(_size_of(path))

    def _finished_path(self, application: str | None, resource_id: str) -> Path | None:
        result = self.ledger.finished_picture(application, resource_id)
        return None if result is None else self.renderer.outputs.find(result.path)

    def finished_file(self, resource_id: str) -> Path | None:
        """The file of a finished picture, for whoever has a signed address of it."""
        return self._finished_path(None, resource_id)

    def _finished_pixels(self, resource_id: str) -> NDArray[np.uint8]:
        """A picture that an earlier job made. Raises ``MissingPicture``."""
        path = self._finished_path(None, resource_id)
        try:
            if path is None:
                raise MissingPicture
            limits = ImageLimits(self.settings.max_input_bytes, self.settings.max_input_pixels)
            return decode_image(path.read_bytes(), limits)
        except (OSError, UnusableImage) as error:
            raise MissingPicture from error


def open_parts(
    settings: Settings,
    jobs: JobQueue,
    outputs: OutputStore,
    library: FileNames,
    preset: Preset,
    folder: Path,
    *,
    black_out_nsfw: bool = False,
) -> StagedParts:
    """The parts of one server. ``folder``: where uploads lie. Reads keys: call it from a thread."""
    limits = ImageLimits(settings.tams_upload_bytes, settings.max_input_pixels)
    resources = Resources(folder, limits, jobs.now_ms)
    ledger = Ledger(jobs)
    folder_of_keys = Path(settings.tams_public_keys) if settings.tams_public_keys else None
    return StagedParts(
        authority=Authority(
            _keys(settings),
            public_keys(folder_of_keys) if folder_of_keys else {},
            settings.tams_clock_skew_s,
            lambda: jobs.now_ms() / 1000,
        ),
        rate_limit=RateLimit(settings.tams_rate_limit, time.monotonic),
        table=ModelTable(settings.tams_models_path),
        resources=resources,
        decoding=CapacityLimiter(1),
        ledger=ledger,
        renderer=Renderer(outputs, resources.signer, ledger, jobs.unfinished, jobs.latest_preview, jobs.now_ms),
        library=library,
        preset=preset,
        settings=settings,
        black_out_nsfw=black_out_nsfw,
    )


def _keys(settings: Settings) -> dict[str, str]:
    """The dialect's own keys, and the server's, which count as well."""
    return {**dict.fromkeys(settings.api_keys, ""), **bearer_keys(settings.tams_keys.get_secret_value())}


def _host_of(url: str) -> str:
    """Raises ``ValueError`` for what is no address."""
    return (urlsplit(url).hostname or "").lower()


def _size_of(path: Path) -> Size:
    from PIL import Image

    with Image.open(path) as picture:
        return Size(picture.width, picture.height)
