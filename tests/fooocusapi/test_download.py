"""Fetching model files from a server on the loopback that does what servers do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fooocus_core.errors import DownloadFailed
from fooocus_core.model_files.catalogue import ModelFile
from fooocusapi.download import Downloader, Patience, mirrored, place_of
from tests.fooocusapi.file_server import (
    CONTENT,
    ETAG,
    SHA256,
    Answer,
    FileServer,
    cut,
    file_server,
    redirected,
    refused,
    sent,
    silent,
    without_ranges,
)

NAME = "x.safetensors"
PATIENCE = Patience(attempts=3, pause_s=0.01)
HASTY = Patience(attempts=3, silence_s=0.8, pause_s=0.01)
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def server(shared_server: FileServer) -> FileServer:
    shared_server.answers.clear()
    shared_server.asked.clear()
    return shared_server


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


class Fetching:
    """A downloader, the file that it is asked for and the folder that it goes into."""

    def __init__(self, server: FileServer, client: httpx.Client, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.client = client
        self.patience = PATIENCE

    def __call__(self, *answers: Answer, name: str = NAME, url: str = "", **known: Any) -> list[tuple[int, int | None]]:
        """What was told on the way."""
        self.server.answers += answers
        file = ModelFile("loras", name, url or self.server.url, **known)
        return [
            (step.done_bytes, step.total_bytes)
            for step in Downloader(self.client, patience=self.patience)(file, self.folder)
        ]

    def failure(self, *answers: Answer, **known: Any) -> str:
        with pytest.raises(DownloadFailed) as failed:
            self(*answers, **known)
        assert str(self.folder) not in str(failed.value)
        return str(failed.value)

    @property
    def left(self) -> dict[str, bytes]:
        """What is in the folder."""
        if not self.folder.exists():
            return {}
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    @property
    def ranges(self) -> list[str | None]:
        """What each request asked for."""
        return [headers.get("Range") for headers in self.server.asked]


@pytest.fixture
def fetch(server: FileServer, client: httpx.Client, tmp_path: Path) -> Fetching:
    return Fetching(server, client, tmp_path / "models" / "loras")


def test_a_file_comes_whole_and_nothing_else_is_left(fetch: Fetching) -> None:
    told = fetch(digest=SHA256, size_bytes=SIZE)
    assert fetch.left == {NAME: CONTENT}
    assert told[0] == (0, SIZE)
    assert told[-1] == (SIZE, SIZE)
    assert fetch.server.asked[0]["Accept-Encoding"] == "identity"


def test_a_file_that_is_there_is_not_asked_for(fetch: Fetching) -> None:
    fetch.folder.mkdir(parents=True)
    (fetch.folder / NAME).write_bytes(b"mine")
    assert fetch() == []
    assert fetch.server.asked == []
    assert fetch.left == {NAME: b"mine"}


def test_cut_connections_are_gone_on_with(fetch: Fetching) -> None:
    fetch(cut(1000), cut(100_000), digest=SHA256)
    assert fetch.left == {NAME: CONTENT}
    assert fetch.ranges == [None, "bytes=1000-", "bytes=100000-"]


def test_the_next_process_goes_on_where_one_was_stopped(fetch: Fetching) -> None:
    assert "3 attempts in a row" in fetch.failure(cut(1000), cut(2000), cut(3000))
    assert sorted(fetch.left) == [f"{NAME}.part", f"{NAME}.part.json"]
    assert fetch.left[f"{NAME}.part"] == CONTENT[:3000]
    fetch(digest=SHA256)
    assert fetch.ranges[-1] == "bytes=3000-"
    assert fetch.left == {NAME: CONTENT}


def test_leaving_in_the_middle_keeps_what_came(fetch: Fetching, client: httpx.Client) -> None:
    file = ModelFile("loras", NAME, fetch.server.url)
    steps = Downloader(client, patience=PATIENCE)(file, fetch.folder)
    next(steps)
    next(steps)
    steps.close()
    assert fetch.left[f"{NAME}.part"] == CONTENT[: len(fetch.left[f"{NAME}.part"])]
    assert NAME not in fetch.left
    fetch(digest=SHA256)
    assert fetch.left == {NAME: CONTENT}


def test_another_file_under_the_same_address_is_taken_from_its_beginning(fetch: Fetching) -> None:
    newer = bytes(reversed(CONTENT))
    fetch(cut(1000), sent(newer, etag='"two"'))
    assert fetch.server.asked[1]["If-Range"] == ETAG
    assert fetch.left == {NAME: newer}


def test_a_part_of_another_address_is_not_gone_on_with(fetch: Fetching) -> None:
    fetch.failure(cut(1000), cut(1001), cut(1002))
    fetch(url=fetch.server.url + "/moved")
    assert fetch.ranges[-1] is None
    assert fetch.left == {NAME: CONTENT}


@pytest.mark.parametrize("note", ["", "{", "[]", json.dumps({"url": 1})])
def test_a_part_that_nobody_knows_is_thrown_away(fetch: Fetching, note: str) -> None:
    fetch.folder.mkdir(parents=True)
    (fetch.folder / f"{NAME}.part").write_bytes(b"what is this" * 100_000)
    (fetch.folder / f"{NAME}.part.json").write_text(note)
    fetch(digest=SHA256)
    assert fetch.ranges == [None]
    assert fetch.left == {NAME: CONTENT}


def test_a_server_without_ranges_starts_anew(fetch: Fetching) -> None:
    fetch(without_ranges(stop_after=1000), without_ranges(), digest=SHA256)
    assert fetch.ranges == [None, None]
    assert fetch.left == {NAME: CONTENT}


def test_a_server_that_ignores_ranges_starts_anew(fetch: Fetching) -> None:
    fetch(cut(1000), without_ranges(), digest=SHA256)
    assert fetch.ranges == [None, "bytes=1000-"]
    assert fetch.left == {NAME: CONTENT}


def test_what_cannot_be_gone_on_with_is_not_kept(fetch: Fetching) -> None:
    fetch.failure(*[without_ranges(stop_after=1000)] * 3)
    assert fetch.left == {}


def another_piece(request: Any) -> None:
    request.tell(206, {"Content-Length": 5, "Content-Range": f"bytes 7-11/{SIZE}"}, CONTENT[7:12])


@pytest.mark.parametrize("answer", [another_piece, refused(416)], ids=["another piece", "no such piece"])
def test_a_wrong_piece_is_not_taken(fetch: Fetching, answer: Answer) -> None:
    fetch(cut(1000), answer, digest=SHA256)
    assert fetch.ranges == [None, "bytes=1000-", None]
    assert fetch.left == {NAME: CONTENT}


def test_wrong_bytes_are_thrown_away(fetch: Fetching) -> None:
    wrong = b"\0" + CONTENT[1:]
    assert "SHA256 differs" in fetch.failure(sent(wrong), digest=SHA256)
    assert fetch.left == {}
    fetch(digest=SHA256)
    assert fetch.left == {NAME: CONTENT}


def test_wrong_bytes_in_the_second_part_are_found(fetch: Fetching) -> None:
    wrong = CONTENT[:2000] + b"\0" + CONTENT[2001:]
    assert "SHA256 differs" in fetch.failure(cut(1000), sent(wrong), digest=SHA256)
    assert fetch.left == {}


def test_md5_where_the_publisher_gives_no_better(fetch: Fetching) -> None:
    digest = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
    fetch(digest=digest)
    assert "MD5 differs" in fetch.failure(name="y", digest=f"md5:{'0' * 32}")
    assert fetch.left == {NAME: CONTENT}


def test_the_digest_that_a_redirect_tells_is_held_against_what_comes(fetch: Fetching) -> None:
    right, wrong = SHA256.removeprefix("sha256:"), "0" * 64
    store = fetch.server.url + "/store"
    assert "SHA256 differs" in fetch.failure(redirected(store, X_Linked_Etag=f'"{wrong}"'))
    fetch(redirected(store, X_Linked_Etag=f'"{right}"'))
    assert fetch.left == {NAME: CONTENT}


@pytest.mark.parametrize("content", [CONTENT + b"more", CONTENT[:-1]], ids=["longer", "shorter"])
def test_another_length_than_the_right_files(fetch: Fetching, content: bytes) -> None:
    told = fetch.failure(sent(content), size_bytes=SIZE)
    assert f"has {len(content)} bytes under this name, the right file {SIZE}" in told
    assert fetch.left == {}
    assert len(fetch.server.asked) == 1


def test_an_answer_without_a_length_is_taken_if_the_length_is_known(fetch: Fetching) -> None:
    def endless(request: Any) -> None:
        request.tell(200, {"ETag": ETAG}, CONTENT)

    def longer(request: Any) -> None:
        request.tell(200, {"ETag": ETAG}, CONTENT + b"more")

    assert "does not say how long it is" in fetch.failure(endless)
    assert "sends more than" in fetch.failure(longer, size_bytes=SIZE)
    fetch(endless, size_bytes=SIZE)
    assert fetch.left == {NAME: CONTENT}


def test_a_chunked_answer_says_itself_where_it_ends(fetch: Fetching) -> None:
    def chunked(whole: bool) -> Answer:
        body = b"%x\r\n%b\r\n" % (SIZE, CONTENT) + (b"0\r\n\r\n" if whole else b"")
        return lambda request: request.tell(200, {"Transfer-Encoding": "chunked"}, body)

    fetch(chunked(whole=False), chunked(whole=True))
    assert len(fetch.server.asked) == 2
    assert fetch.left == {NAME: CONTENT}


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_told_at_once(fetch: Fetching, status: int) -> None:
    told = fetch.failure(refused(status))
    assert told == f"{NAME} cannot be downloaded: 127.0.0.1 answered {status} ({fetch.server.url})"
    assert len(fetch.server.asked) == 1
    assert fetch.left == {}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(fetch: Fetching, status: int) -> None:
    fetch(refused(status), refused(status))
    assert fetch.left == {NAME: CONTENT}
    told = fetch.failure(*[refused(status)] * 3, name="y")
    assert f"127.0.0.1 answered {status} (3 attempts in a row" in told


def test_a_silent_server_is_left_and_asked_again(fetch: Fetching) -> None:
    fetch.patience = HASTY
    fetch(silent(after=1000), digest=SHA256)
    assert fetch.ranges == [None, "bytes=1000-"]
    assert fetch.left == {NAME: CONTENT}
    assert "does not answer in time" in fetch.failure(silent(1000), silent(1000), silent(1000), name="y")


def test_nobody_there(fetch: Fetching) -> None:
    assert "3 attempts in a row" in fetch.failure(url="http://127.0.0.1:9/file")
    assert fetch.left == {}


def test_a_web_page_is_no_model(fetch: Fetching) -> None:
    page = b"<html>Please log in"
    told = fetch.failure(
        lambda request: request.tell(200, {"Content-Type": "text/html", "Content-Length": len(page)}, page)
    )
    assert "answered with a web page" in told
    assert fetch.left == {}


def test_packed_data_that_nobody_asked_for(fetch: Fetching) -> None:
    told = fetch.failure(lambda request: request.tell(200, {"Content-Encoding": "gzip", "Content-Length": 4}, b"abcd"))
    assert "packed data" in told


def test_a_redirect_to_another_host_is_followed(fetch: Fetching) -> None:
    fetch(redirected(fetch.server.url.replace("127.0.0.1", "localhost")))
    assert fetch.left == {NAME: CONTENT}


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/file", "file:///etc/hostname"])
def test_only_the_web_is_followed(fetch: Fetching, to: str) -> None:
    assert "its address leads nowhere" in fetch.failure(redirected(to))
    assert "its address leads nowhere" in fetch.failure(url=to)
    assert fetch.left == {}


def test_redirects_without_end(fetch: Fetching) -> None:
    assert "its address leads nowhere" in fetch.failure(*[redirected(fetch.server.url)] * 30)


@pytest.mark.parametrize(
    "name", ["", "../x", "a/../../x", "/etc/x", "..\\x", "C:\\x", "C:x", "\\\\host\\x", "a\0b", "..", "."]
)
def test_no_name_leads_out_of_the_folder(fetch: Fetching, name: str) -> None:
    with pytest.raises(DownloadFailed, match="its name leads out of the models' folder"):
        fetch(name=name)
    assert fetch.server.asked == []


def test_no_link_leads_out_of_the_folder(fetch: Fetching, tmp_path: Path) -> None:
    fetch.folder.mkdir(parents=True)
    (fetch.folder / "out").symlink_to(tmp_path)
    assert "a link leads out" in fetch.failure(name=f"out/{NAME}")
    assert fetch.server.asked == []


def test_a_sub_folder_is_made(fetch: Fetching) -> None:
    fetch(name=f"deep/er/{NAME}")
    assert (fetch.folder / "deep" / "er" / NAME).read_bytes() == CONTENT
    assert place_of(ModelFile("loras", "a\\b", ""), fetch.folder) == fetch.folder / "a" / "b"


def test_a_full_disk_is_told_before_anything_is_written(fetch: Fetching, client: httpx.Client) -> None:
    file = ModelFile("loras", NAME, fetch.server.url)
    with pytest.raises(DownloadFailed, match=r"it needs 0\.3 MB and the disk has 1\.0 MB left"):
        list(Downloader(client, patience=PATIENCE, free_bytes=lambda folder: 10**6)(file, fetch.folder))
    assert fetch.left == {}


def test_a_folder_that_cannot_be_written_is_told(fetch: Fetching) -> None:
    fetch.folder.parent.mkdir()
    fetch.folder.write_text("no folder")
    assert "it cannot be written: File exists" in fetch.failure()


def test_two_processes_do_not_write_the_same_part(fetch: Fetching, client: httpx.Client) -> None:
    first = Downloader(client, patience=PATIENCE)(ModelFile("loras", NAME, fetch.server.url), fetch.folder)
    next(first)
    assert "another process is fetching it" in fetch.failure()
    list(first)
    assert fetch.left == {NAME: CONTENT}


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        ("", "https://huggingface.co/a/b"),
        ("mirror.example", "https://mirror.example/a/b"),
        ("http://mirror.example/hf/", "http://mirror.example/hf/a/b"),
    ],
)
def test_a_mirror_stands_in_for_hugging_face_alone(mirror: str, expected: str) -> None:
    assert mirrored("https://huggingface.co/a/b", mirror) == expected
    assert mirrored("https://huggingface.com.example/a", mirror) == "https://huggingface.com.example/a"
