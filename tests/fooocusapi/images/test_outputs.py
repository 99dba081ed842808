"""The outputs folder: names, whole files, safe look-ups."""

from __future__ import annotations

import base64
import errno
import os
import random
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fooocus_core.errors import InvalidRequest
from fooocus_core.plan import ImageFormat, Output
from fooocusapi.images.outputs import OutputStore, remove_unfinished
from fooocusapi.jobs.job import Job
from tests.fooocusapi.fakes import a_plan, an_image
from tests.fooocusapi.served import pixels_of

DAY = "2025-02-23"


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return OutputStore(tmp_path / "out", "http://host:8888/", now=lambda: datetime.fromisoformat(DAY))


def a_job(**output: object) -> Job:
    plan = replace(a_plan(), output=Output(**output))  # type: ignore[arg-type]
    return Job("some-id", "classic", "Text to Image", plan)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_picture_gets_the_days_folder_and_the_jobs_name(store: OutputStore, tmp_path: Path) -> None:
    assert store.save(a_job(), an_image(3)) == f"{DAY}/some-id-3.png"
    assert files_below(tmp_path) == [f"out/files/{DAY}/some-id-3.png"]


@pytest.mark.parametrize(("image_format", "starts"), [("png", b"\x89PNG"), ("jpg", b"\xff\xd8"), ("webp", b"RIFF")])
def test_the_suffix_is_the_real_kind(store: OutputStore, image_format: ImageFormat, starts: bytes) -> None:
    relative = store.save(a_job(image_format=image_format), an_image())
    path = store.find(relative)
    assert path is not None
    assert path.suffix == f".{image_format}"
    assert path.read_bytes().startswith(starts)


def test_dated_names_are_fooocuss_and_never_taken_twice(tmp_path: Path) -> None:
    """A generator that draws the same number twice makes no second picture of that name."""

    class Drawing(random.Random):
        numbers = iter([1234, 1234, 5678])

        def randint(self, a: int, b: int) -> int:
            return next(self.numbers)

    store = OutputStore(tmp_path, "http://host", now=lambda: datetime(2025, 2, 23, 14, 5, 9), rng=Drawing())
    saved = [store.save(a_job(dated_names=True, image_format="webp"), an_image(index)) for index in range(2)]
    assert saved == [f"{DAY}/{DAY}_14-05-09_1234.webp", f"{DAY}/{DAY}_14-05-09_5678.webp"]
    assert store.url(saved[0], "outputs") == f"http://host/outputs/{saved[0]}"
    assert store.save(a_job(dated_names=True, save_name="apple"), an_image(1)) == f"{DAY}/apple-1.png"


def test_a_name_of_the_client_may_have_sub_folders(store: OutputStore) -> None:
    relative = store.save(a_job(save_name="garden/red apple"), an_image())
    assert relative == f"{DAY}/garden/red apple-0.png"
    assert store.url(relative) == f"http://host:8888/files/{DAY}/garden/red%20apple-0.png"
    assert store.find(relative) is not None


@pytest.mark.parametrize("name", ["../up", "/root", "a/../../b", "a\x00"])
def test_a_name_that_leads_out_is_refused_here_too(store: OutputStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        store.save(a_job(save_name=name), an_image())
    assert files_below(tmp_path) == []


def test_a_linked_folder_does_not_lead_out(store: OutputStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "out" / "files" / DAY
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(elsewhere)
    with pytest.raises(PermissionError):
        store.save(a_job(save_name="link/x"), an_image())
    assert files_below(elsewhere) == []


def test_the_same_name_overwrites_in_one_step(store: OutputStore) -> None:
    first = store.save(a_job(save_name="x"), an_image(seed=10))
    path = store.find(first)
    assert path is not None
    with path.open("rb") as reader:
        assert store.save(a_job(save_name="x"), an_image(seed=20)) == first
        assert pixels_of(reader.read())[0, 0, 0] == 10
    assert pixels_of(path.read_bytes())[0, 0, 0] == 20


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(
    store: OutputStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif failing == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        store = OutputStore(tmp_path / "out", "", encode=lambda *_: _TooLong())  # type: ignore[arg-type, return-value]
    with pytest.raises((OSError, TypeError)):
        store.save(a_job(), an_image())
    assert files_below(tmp_path) == []


class _TooLong:
    """No bytes at all: writing it fails after the file was opened."""


def test_metadata_is_written_when_asked_for(store: OutputStore) -> None:
    plain = store.find(store.save(a_job(), an_image(0)))
    marked = store.find(store.save(a_job(save_metadata=True), an_image(1)))
    assert plain is not None
    assert marked is not None
    assert b"parameters" not in plain.read_bytes()
    assert b"parameters" in marked.read_bytes()


@pytest.mark.parametrize("image_format", ["png", "jpg", "jpeg", "webp"])
def test_base64_names_the_kind_and_has_no_metadata(store: OutputStore, image_format: ImageFormat) -> None:
    relative = store.save(a_job(image_format=image_format, save_metadata=True), an_image())
    text = store.as_base64(relative)
    assert text is not None
    found = re.fullmatch(rf"data:image/{image_format};base64,(.+)", text)
    assert found is not None
    data = base64.b64decode(found[1], validate=True)
    assert b"Fooocus v" not in data
    path = store.find(relative)
    assert path is not None
    assert np.array_equal(pixels_of(data), pixels_of(path.read_bytes()))


def test_base64_without_its_prefix(tmp_path: Path) -> None:
    store = OutputStore(tmp_path, "", base64_prefix=False)
    text = store.as_base64(store.save(a_job(), an_image()))
    assert text is not None
    assert base64.b64decode(text, validate=True).startswith(b"\x89PNG")


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_a_picture_is_had_as_another_kind(store: OutputStore, image_format: ImageFormat) -> None:
    data = store.as_kind(store.save(a_job(image_format=image_format, save_metadata=True), an_image()), "webp")
    assert data is not None
    assert data.startswith(b"RIFF")
    assert b"EXIF" not in data


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
def test_every_kind_is_had_as_png(store: OutputStore, image_format: ImageFormat) -> None:
    relative = store.save(a_job(image_format=image_format, save_metadata=True), an_image())
    data = store.as_kind(relative, "png")
    assert data is not None
    assert data.startswith(b"\x89PNG")
    assert b"parameters" not in data


def test_what_is_gone_is_none(store: OutputStore) -> None:
    relative = store.save(a_job(), an_image())
    store.delete([relative, relative, "2025-02-23/never-0.png", "../../etc/passwd"])
    assert store.find(relative) is None
    assert store.as_base64(relative) is None
    assert store.as_kind(relative, "png") is None


def test_deleting_takes_nothing_outside(store: OutputStore, tmp_path: Path) -> None:
    outside = tmp_path / "out" / "outside.png"
    outside.parent.mkdir()
    outside.write_bytes(b"x")
    (tmp_path / "out" / "files").mkdir()
    store.delete(["../outside.png", str(outside)])
    assert outside.exists()


TRAVERSALS = [
    "",
    ".",
    "..",
    "../secret.png",
    "2025-02-23/../../secret.png",
    "2025-02-23/../../../../../../etc/passwd.png",
    "/etc/passwd",
    "//secret.png",
    "..\\secret.png",
    "2025-02-23\\..\\..\\secret.png",
    "2025-02-23/link.png",
    "2025-02-23/linked/secret.png",
    "2025-02-23/loop.png",
    "2025-02-23/x\x00.png",
    "\x00",
    "2025-02-23",
    "2025-02-23/",
    "2025-02-23/folder.png",
    "2025-02-23/notes.txt",
    "2025-02-23/noend",
    "x" * 5000 + ".png",
    "a/" * 3000 + "b.png",
    "\ud800.png",
]


@pytest.mark.parametrize("relative", TRAVERSALS)
def test_nothing_outside_is_found(store: OutputStore, tmp_path: Path, relative: str) -> None:
    folder = tmp_path / "out" / "files" / DAY
    folder.mkdir(parents=True)
    for secret in (tmp_path / "secret.png", tmp_path / "out" / "secret.png", folder / "notes.txt", folder / "noend"):
        secret.write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "folder.png").mkdir()
    assert store.find(relative) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("./\\%\x00a~:-") | st.characters(), max_size=40))
def test_any_text_is_looked_up_without_an_error(store: OutputStore, relative: str) -> None:
    assert store.find(relative + ".png") is None


def test_a_linked_outputs_root_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    store = OutputStore(tmp_path / "linked", "http://h")
    assert store.find(store.save(a_job(), an_image())) is not None


def test_unfinished_files_are_not_served(store: OutputStore, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "files" / DAY
    folder.mkdir(parents=True)
    (folder / ".0123.part").write_bytes(b"half")
    assert store.find(f"{DAY}/.0123.part") is None


@pytest.mark.parametrize("prefix", ["http://host:8888/files", "https://other/outputs", "http://[::1]/files", "/files"])
def test_a_picture_is_found_by_any_address_of_it(store: OutputStore, prefix: str) -> None:
    relative = store.save(a_job(save_name="garden/red apple #1"), an_image())
    found = store.find_by_url(f"{prefix}/{DAY}/garden/red%20apple%20%231-0.png?x=1#y")
    assert found is not None
    assert found == store.find(relative)


@pytest.mark.parametrize("url", ["http://host/files/", "http://host/", "http://[::1/files/x.png", "", "files/x.png"])
def test_other_addresses_are_of_no_picture(store: OutputStore, url: str) -> None:
    assert store.find_by_url(url) is None


def test_what_a_lost_process_was_writing_is_removed(tmp_path: Path) -> None:
    day = tmp_path / "files" / DAY
    day.mkdir(parents=True)
    for name in (f".{'0' * 16}.part", "some-id-0.png", ".hidden.part", "own.part"):
        (day / name).write_bytes(b"x")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in day.iterdir()) == [".hidden.part", "own.part", "some-id-0.png"]


def test_the_path_is_noted_before_the_picture_is_there(store: OutputStore) -> None:
    there: list[bool] = []
    relative = store.save(a_job(), an_image(), lambda relative: there.append(store.find(relative) is not None))
    assert store.find(relative) is not None
    assert there == [False]
