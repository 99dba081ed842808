"""What a stage and its plan need is fetched before it goes on, or named with its address."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fooocus_core.errors import DownloadFailed, Interrupted, UnknownModel
from fooocus_core.events import Event, ImageFinished, Progress
from fooocus_core.library import POCKET_NAME, Library
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.model_files.catalogue import EXPANSION_FOLDER, Catalogue, ModelFile, Shelves
from fooocus_core.model_files.supply import Fetched, Fetching, Supply
from fooocus_core.plan import Detail, Diffuse, Lora, Models, PartSearch, PartsPass, Prompts, StartPicture
from fooocus_core.prompts.expansion import FOLDER, WEIGHT_FILES

WEB = "https://example.org/"
CATALOGUE = Catalogue(
    [
        ModelFile("checkpoints", "big.safetensors", WEB + "big"),
        ModelFile("vae", "clear.safetensors", WEB + "clear"),
        ModelFile("loras", "paint.safetensors", WEB + "paint"),
        ModelFile("vae_approx", "bridge.safetensors", WEB + "bridge"),
        ModelFile(EXPANSION_FOLDER, "config.json", WEB + "config"),
        ModelFile(EXPANSION_FOLDER, WEIGHT_FILES[-1], WEB + "weights"),
    ]
)
PLAIN = Diffuse(Models(POCKET_NAME), Prompts("a"), width_px=64, height_px=64, seed=1)
PLAYED = Progress(0.5, "played")


class Store:
    """Fetches by making empty files, in two pieces."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shelves = Shelves(Library.below(root), root / FOLDER)
        self.fetched: list[str] = []
        self.makes_files = True

    def __call__(self, file: ModelFile, folder: Path) -> Generator[Fetched, None, None]:
        yield Fetched(0, 4_000_000)
        yield Fetched(1_000_000, 4_000_000)
        yield Fetched(1_010_000, 4_000_000)
        if self.makes_files:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file.name).touch()
        self.fetched.append(f"{file.folder}/{file.name}")

    @property
    def supply(self) -> Supply:
        return Supply(CATALOGUE, Fetching(self.shelves, self))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def played() -> Iterator[Event]:
    yield PLAYED


def needing(store: Store, kind: str, name: str, *, after: Event = PLAYED) -> Callable[[], Iterator[Event]]:
    """A stage that cannot go on without a file."""

    def run() -> Iterator[Event]:
        yield after
        if not (store.root / kind / name).is_file():
            raise UnknownModel(kind, name, "this picture")

    return run


def never() -> bool:
    return False


def test_the_files_that_a_plan_names_come_first(store: Store) -> None:
    models = Models("big.safetensors", "clear.safetensors", (Lora("paint.safetensors", 1.0), Lora("gone", 1.0)))
    events = list(store.supply.supplied(replace(PLAIN, models=models), played, never))
    assert store.fetched == ["checkpoints/big.safetensors", "vae/clear.safetensors", "loras/paint.safetensors"]
    assert events[-1] == PLAYED
    assert events[:2] == [
        Progress(0.0, "Downloading big.safetensors: 0 % of 4 MB ..."),
        Progress(0.0, "Downloading big.safetensors: 25 % of 4 MB ..."),
    ]
    assert len(events) == 7
    assert list(store.supply.supplied(replace(PLAIN, models=models), played, never)) == [PLAYED]


def test_a_refiner_is_named_by_the_plan_and_a_modes_lora_is_not(store: Store) -> None:
    models = Models(POCKET_NAME, performance_lora=Lora("paint.safetensors", 1.0), refiner="big.safetensors")
    assert [file.name for file in store.supply.named_by(replace(PLAIN, models=models))] == ["big.safetensors"]


def test_passes_over_parts_may_name_files_of_their_own(store: Store) -> None:
    of_pass = replace(PLAIN, models=Models("big.safetensors", loras=(Lora("paint.safetensors", 1.0),)))
    passes = (PartsPass(PartSearch("mtcnn")), PartsPass(PartSearch("mtcnn"), base=of_pass))
    detail = Detail(replace(PLAIN, models=Models(POCKET_NAME, "clear.safetensors")), 1, 1, passes=passes)
    assert list(store.supply.supplied(detail, played, never))[-1] == PLAYED
    assert store.fetched == ["vae/clear.safetensors", "checkpoints/big.safetensors", "loras/paint.safetensors"]


def test_what_is_only_enlarged_needs_nothing_that_its_plan_names(store: Store) -> None:
    start = StartPicture("abc", "Upscale (2x)", 0.382, 2.0)
    refined = replace(PLAIN, models=Models("big.safetensors"), start=start)
    assert [file.name for file in store.supply.named_by(refined)] == ["big.safetensors"]
    assert store.supply.named_by(replace(refined, start=replace(start, refine=False))) == []


def test_the_expansion_belongs_to_its_style(store: Store) -> None:
    expanded = replace(PLAIN, prompts=Prompts("a", styles=("Fooocus V2",)))
    assert store.supply.named_by(PLAIN) == []
    assert [file.name for file in store.supply.named_by(expanded)] == ["config.json", "pytorch_model.bin"]
    (store.root / FOLDER).mkdir(parents=True)
    (store.root / FOLDER / "model.safetensors").touch()
    assert store.supply.named_by(expanded) == []


def test_a_stage_that_misses_a_file_is_played_anew(store: Store) -> None:
    events = list(store.supply.supplied(PLAIN, needing(store, "vae_approx", "bridge.safetensors"), never))
    assert [event.text for event in events if isinstance(event, Progress)] == [
        "played",
        "Downloading bridge.safetensors: 0 % of 4 MB ...",
        "Downloading bridge.safetensors: 25 % of 4 MB ...",
        "played",
    ]


def test_without_fetching_the_address_is_told(store: Store) -> None:
    with pytest.raises(UnknownModel) as missing:
        list(Supply(CATALOGUE).supplied(PLAIN, needing(store, "vae_approx", "bridge"), never))
    assert str(missing.value) == (
        "vae_approx: no file named 'bridge.safetensors', needed for this picture; it is published at "
        "https://example.org/bridge and fetched by: main.py download bridge.safetensors"
    )
    assert Supply(CATALOGUE).named_by(replace(PLAIN, models=Models("big.safetensors"))) == []


@pytest.mark.parametrize("is_fetching", [True, False])
def test_a_file_that_nobody_publishes_is_told_as_it_is(store: Store, is_fetching: bool) -> None:
    supply = store.supply if is_fetching else Supply(CATALOGUE)
    with pytest.raises(UnknownModel, match=r"^loras: no file named 'own', needed for this picture$"):
        list(supply.supplied(PLAIN, needing(store, "loras", "own"), never))


def test_a_file_is_fetched_once_for_a_stage(store: Store) -> None:
    store.makes_files = False
    with pytest.raises(UnknownModel, match="bridge"):
        list(store.supply.supplied(PLAIN, needing(store, "vae_approx", "bridge.safetensors"), never))
    assert store.fetched == ["vae_approx/bridge.safetensors"]


def test_finished_pictures_are_not_made_twice(store: Store) -> None:
    picture = ImageFinished(0, 1, np.zeros((8, 8, 3), np.uint8), ImageRecord.__new__(ImageRecord))
    run = needing(store, "vae_approx", "bridge.safetensors", after=picture)
    with pytest.raises(UnknownModel, match="published at"):
        list(store.supply.supplied(PLAIN, run, never))
    assert store.fetched == []


def test_a_download_can_be_stopped(store: Store) -> None:
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        list(store.supply.supplied(replace(PLAIN, models=Models("big")), played, lambda: next(asked)))
    assert store.fetched == []


def test_a_failed_download_fails_the_stage(store: Store) -> None:
    def failing(file: ModelFile, folder: Path) -> Generator[Fetched, None, None]:
        yield Fetched(0, None)
        raise DownloadFailed(file.name, "nobody there")

    supply = Supply(CATALOGUE, Fetching(store.shelves, failing))
    with pytest.raises(DownloadFailed, match=r"^big\.safetensors cannot be downloaded: nobody there$"):
        list(supply.supplied(replace(PLAIN, models=Models("big")), played, never))


def test_closing_the_events_closes_the_stage(store: Store) -> None:
    ended = []

    def run() -> Iterator[Event]:
        try:
            yield PLAYED
            yield PLAYED
        finally:
            ended.append(True)

    events = store.supply.supplied(PLAIN, run, never)
    next(events)
    events.close()
    assert ended == [True]
