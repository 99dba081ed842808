"""A whole server for tests over HTTP: the real application, queue, worker, journal and store, a pretended engine."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from fooocus_core.masks.options import MaskOptions
from fooocus_core.presets.preset import Preset, load_preset
from fooocus_core.presets.sizes import SizeLimits
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import resolve_request
from fooocusapi.app import create_app
from fooocusapi.fetch import FetchFailed
from fooocusapi.images.decode import ImageLimits
from fooocusapi.images.inputs import InputImages
from fooocusapi.images.kept import KeptPictures, pictures_of
from fooocusapi.images.outputs import OutputStore
from fooocusapi.images.shown import ShownPictures
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.queue import JobQueue, Limits
from fooocusapi.jobs.webhooks import Delivery
from fooocusapi.jobs.worker import Worker
from fooocusapi.presets import NamedPresets
from fooocusapi.services import Services
from fooocusapi.settings import Settings
from fooocusapi.surfaces.tams.parts import StagedParts, open_parts
from tests.fooocusapi.fakes import PATIENCE_S, CountedIds, FakeClock, HandEngine, ScriptedEngine

TODAY = "2025-02-23"
TEXT_TO_IMAGE = "/v1/generation/text-to-image"
FIRST_ID = "00000000-0000-4000-8000-000000000001"
DRAWN_SEED = 6023511366105519179
STYLE_NAMES = ("Fooocus V2", "Random Style", "Fooocus Enhance", "Fooocus Sharp")


class FakeLibrary:
    """Model files by name only."""

    def __init__(self, checkpoints: Sequence[str], loras: Sequence[str], vae: Sequence[str] = ()) -> None:
        self.names = {"checkpoints": list(checkpoints), "loras": list(loras), "vae": list(vae)}

    def checkpoint_names(self) -> Sequence[str]:
        return self.names["checkpoints"]

    def lora_names(self) -> Sequence[str]:
        return self.names["loras"]

    def find(self, kind: str, name: str) -> str | None:
        names = self.names.get(kind, [])
        return name if name in names else {known.rpartition(".")[0]: known for known in names}.get(name)


async def nothing_there(url: str) -> bytes:
    """A network on which no address answers."""
    raise FetchFailed("the address does not answer")


class UnloadableEngine(ScriptedEngine):
    """Counts how often its memory was asked back."""

    unloaded = 0

    def unload(self) -> None:
        self.unloaded += 1


class WordyDescriber:
    """Says of every picture the same."""

    def describe(self, picture: np.ndarray, contents: Collection[str]) -> str:
        return "a red apple on a wooden table"

    def unload(self) -> None:
        return


class BlankMasks:
    """Finds nothing in any picture."""

    def make(self, picture: np.ndarray, options: MaskOptions) -> np.ndarray:
        return np.zeros(picture.shape[:2], np.uint8)

    def unload(self) -> None:
        return


class HeldEngine(HandEngine):
    """Played by hand; has nothing to unload."""

    def unload(self) -> None:
        return


@dataclass
class House:
    """What a test needs of the server, before and after it runs."""

    root: Path
    engine: Any = field(default_factory=UnloadableEngine)
    masks: Any = field(default_factory=BlankMasks)
    describer: Any = field(default_factory=WordyDescriber)
    library: FakeLibrary = field(
        default_factory=lambda: FakeLibrary(
            ["juggernautXL_v8Rundiffusion.safetensors", "other.safetensors", "deep/third.safetensors"],
            ["sd_xl_offset_example-lora_1.0.safetensors", "sub/paint.safetensors"],
            ["taef.safetensors"],
        )
    )
    preset: Preset = field(default_factory=lambda: load_preset("default"))
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    requests: list[GenerationRequest] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    told: list[Delivery] = field(default_factory=list)
    """What callbacks of staged jobs would be sent."""
    jobs: JobQueue = field(init=False)
    kept: KeptPictures = field(init=False)
    shown: ShownPictures = field(init=False)
    outputs: OutputStore = field(init=False)
    staged: StagedParts = field(init=False)

    def open(self) -> Services:
        """Joins everything, as the runtime does."""
        journal = SqlJournal(f"sqlite:///{self.root / 'journal.db'}")
        self.outputs = OutputStore(
            self.root,
            self.settings.public_url,
            base64_prefix=not self.settings.bare_base64,
            now=lambda: datetime.fromisoformat(TODAY),
        )
        self.kept = KeptPictures(self.root / "inputs")
        told: dict[str, Callable[[Job], Delivery | None]] = {}

        def tell(job: Job) -> None:
            delivery = told[job.surface](job) if job.surface in told else None
            if delivery is not None:
                self.told.append(delivery)

        self.shown = ShownPictures(self.root / "sent", self.settings.public_url)
        self.jobs = JobQueue(
            journal,
            clock=self.clock,
            limits=self.limits,
            new_id=CountedIds(),
            delete_files=self.outputs.delete,
            on_ended=[lambda job: self.kept.let_go(pictures_of(job.plan)), tell],
        )
        self.staged = open_parts(
            self.settings, self.jobs, self.outputs, self.library, self.preset, self.root / "resources"
        )
        told["tams"] = self.staged.callback
        worker = Worker(self.jobs, self.outputs, lambda: self.engine)
        worker.start()

        def close() -> None:
            self.jobs.stop_running()
            self.jobs.release_waiters()
            worker.stop(0, PATIENCE_S if not isinstance(self.engine, HandEngine) else 0.1)
            journal.close()

        return Services(
            jobs=self.jobs,
            outputs=self.outputs,
            inputs=InputImages(
                [self.outputs, self.shown],
                nothing_there,
                ImageLimits(self.settings.max_input_bytes, self.settings.max_input_pixels),
            ),
            kept=self.kept,
            shown=self.shown,
            engine=worker,
            masks=self.masks,
            describer=self.describer,
            library=self.library,
            resolve=self.resolve,
            preset=self.preset,
            presets=NamedPresets(self.preset, load_preset, ()),
            staged=self.staged,
            style_names=STYLE_NAMES,
            close=close,
        )

    def resolve(self, request: GenerationRequest, preset: Preset | None = None) -> Any:
        self.requests.append(request)
        return resolve_request(
            request,
            preset or self.preset,
            self.library,
            lambda: DRAWN_SEED,
            SizeLimits(max_pixels=self.settings.max_pixels, max_repainted_pixels=self.settings.max_input_pixels),
            max_prompt_characters=self.settings.max_prompt_characters,
        )

    @property
    def files(self) -> list[str]:
        """Every finished picture on disk."""
        folder = self.root / "files"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def serving(house: House) -> Iterator[TestClient]:
    """A client of the running server; the server has opened everything when it is handed over."""
    with TestClient(create_app(house.settings, house.open), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").json()["status"] != "starting")
        yield client


def wait_until(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Looks again and again, for no longer than a test is patient."""
    deadline_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.002)


def query(client: TestClient, job_id: str = FIRST_ID, **parameters: Any) -> Any:
    return client.get("/v1/generation/query-job", params={"job_id": job_id, **parameters}).json()


def finished(client: TestClient, job_id: str = FIRST_ID) -> Any:
    """The job's answer once it has ended."""
    wait_until(lambda: query(client, job_id)["job_stage"] in ("SUCCESS", "ERROR"))
    return query(client, job_id)


def in_background(call: Callable[[], Any]) -> Callable[[], Any]:
    """Begins ``call`` on a thread; the returned function waits for its value."""
    values: list[Any] = []
    thread = threading.Thread(target=lambda: values.append(call()), daemon=True)
    thread.start()

    def value() -> Any:
        thread.join(PATIENCE_S)
        assert values, "the call did not return"
        return values[0]

    return value


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
