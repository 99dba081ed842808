"""Bad pictures against a server process: a clear answer in time, little memory, and nothing left on the disk.

The engine of the process is fake, so that what it takes is what the HTTP side takes.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import re
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fooocus_core.events import Finished
from fooocusapi.addresses import IPAddress
from fooocusapi.fetch import Fetcher, FetchLimits, GuardedTransport
from fooocusapi.images.decode import ImageLimits
from fooocusapi.images.inputs import InputImages
from fooocusapi.services import Services
from tests.fooocusapi import served
from tests.fooocusapi.file_server import FileServer, Request, file_server, redirected, refused, sent
from tests.fooocusapi.hostile import FEW, FILES, Hostile, many_frames, plain
from tests.fooocusapi.test_process import Server, serving, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and open files are told elsewhere")

ANSWERED_WITHIN_S = 15.0
MAX_GROWTH_MIB = 300
MAX_KEPT_MIB = 200
"""What the process keeps for the next time; each refused body that stayed would add to it."""
MIB = 2**20
FETCH_TIMEOUT_S = 0.8
PICTURE = plain("PNG")
TEXT = base64.b64encode(PICTURE).decode()
UPSCALE_FORM, UPSCALE_JSON = "/v1/generation/image-upscale-vary", "/v2/generation/image-upscale-vary"
INPAINT_FORM, INPAINT_JSON = "/v1/generation/image-inpaint-outpaint", "/v2/generation/image-inpaint-outpaint"
PROMPT_FORM, PROMPT_JSON = "/v1/generation/image-prompt", "/v2/generation/image-prompt"
TEXT_WITH_PROMPTS = "/v2/generation/text-to-image-with-ip"
PACKED_BOMB = gzip.compress(PICTURE + bytes(20 * MIB), 1)
METHOD = {"uov_method": "Vary (Subtle)"}


@dataclass(frozen=True)
class Watched:
    """A server process, and what it takes."""

    server: Server
    idle_mib: int
    temporary: Path

    def post(self, path: str, **request: Any) -> httpx.Response:
        """The answer, which came in time, for little memory, and left nothing behind."""
        files, memory_mib = self.files(), self.memory_mib("VmRSS")
        self.forget_peak()
        begun_s = time.monotonic()
        answer = self.server.client.post(path, **request)
        assert time.monotonic() - begun_s < ANSWERED_WITHIN_S
        assert self.memory_mib("VmHWM") - memory_mib < MAX_GROWTH_MIB
        until(lambda: not self.unnamed_files())
        if answer.status_code != 200:
            assert self.files() <= files, "a picture of an earlier request may have gone meanwhile"
        return answer

    def files(self) -> set[Path]:
        """Everything on disk but the journal, whose rows tests do not look at."""
        outputs = {path for path in (self.server.folder / "outputs").rglob("*") if not path.name.startswith("journal")}
        return outputs | set(self.temporary.rglob("*"))

    def unnamed_files(self) -> list[str]:
        """What is on disk and cannot be seen: files without a name, which last until they are closed."""
        opened = Path(f"/proc/{self.server.process.pid}/fd")
        with contextlib.suppress(FileNotFoundError):  # One was closed while they were looked through.
            names = [str(path.readlink()) for path in opened.iterdir()]
            return [name for name in names if "(deleted)" in name]
        return ["?"]

    def memory_mib(self, figure: str) -> int:
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        found = re.search(rf"{figure}:\s+(\d+) kB", status)
        assert found is not None, figure
        return int(found[1]) // 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.server.process.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def addresses() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, addresses: FileServer) -> Iterator[Watched]:
    """``addresses`` stands in for the open network: the server takes it for itself, which it may always reach."""
    folder = tmp_path_factory.mktemp("watched")
    temporary = folder / "temporary"
    temporary.mkdir()
    own = addresses.url.removesuffix("/file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with serving(folder, "--base-url", own, "--fetch-timeout-s", str(FETCH_TIMEOUT_S)) as server:
            for _ in range(3):
                assert server.client.post(UPSCALE_JSON, json={"input_image": TEXT, **METHOD}).status_code == 200
            watched = Watched(server, 0, temporary)
            yield replace(watched, idle_mib=watched.memory_mib("VmRSS"))


def refusal(answer: httpx.Response, *place: str | int) -> str:
    """The reason, from an answer in the dialect's shape that names the place."""
    assert answer.status_code == 422, answer.text[:500]
    assert list(answer.json()) == ["detail", "body"]
    (fault,) = answer.json()["detail"]
    assert list(fault) == ["type", "loc", "msg", "input"]
    assert fault["loc"] == ["body", *place]
    assert len(answer.content) < 10_000
    return str(fault["msg"])


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.kind}: {file.name}")
def test_files_that_are_no_pictures(watched: Watched, file: Hostile) -> None:
    data = file.make()
    answer = watched.post(UPSCALE_FORM, files={"input_image": data}, data=METHOD)
    assert re.search(file.says, refusal(answer, "input_image"))
    if len(data) < MIB:
        again = watched.post(UPSCALE_JSON, json={"input_image": in_base64(data), **METHOD})
        assert refusal(again, "input_image") == refusal(answer, "input_image")


Send = Callable[[bytes], dict[str, Any]]
PLACES: list[tuple[str, tuple[str | int, ...], Send]] = [
    (UPSCALE_JSON, ("input_image",), lambda data: {"data": {"input_image": in_base64(data), **METHOD}}),
    (INPAINT_FORM, ("input_image",), lambda data: {"files": {"input_image": data}}),
    (INPAINT_FORM, ("input_mask",), lambda data: {"files": {"input_image": PICTURE, "input_mask": data}}),
    (INPAINT_JSON, ("input_image",), lambda data: {"json": {"input_image": in_base64(data)}}),
    (INPAINT_JSON, ("input_mask",), lambda data: {"json": {"input_image": TEXT, "input_mask": in_base64(data)}}),
    (PROMPT_FORM, ("input_image",), lambda data: {"files": {"input_image": data, "cn_img1": PICTURE}}),
    (PROMPT_FORM, ("cn_img1",), lambda data: {"files": {"cn_img1": data}}),
    (PROMPT_FORM, ("cn_img4",), lambda data: {"files": {"cn_img1": PICTURE, "cn_img4": data}}),
    (PROMPT_JSON, ("input_mask",), lambda data: {"json": {"input_image": TEXT, "input_mask": in_base64(data)}}),
    (
        PROMPT_JSON,
        ("image_prompts", 1, "cn_img"),
        lambda data: {"json": {"image_prompts": [{"cn_img": TEXT}, {"cn_img": in_base64(data)}]}},
    ),
    (
        TEXT_WITH_PROMPTS,
        ("image_prompts", 0, "cn_img"),
        lambda data: {"json": {"image_prompts": [{"cn_img": in_base64(data)}]}},
    ),
    ("/v1/generation/image-enhance", ("enhance_input_image",), lambda data: {"files": {"enhance_input_image": data}}),
    (
        "/v2/generation/image-enhance",
        ("enhance_input_image",),
        lambda data: {"json": {"enhance_input_image": in_base64(data)}},
    ),
    ("/v1/tools/describe-image", ("image",), lambda data: {"files": {"image": data}}),
    ("/v1/tools/generate_mask", ("image",), lambda data: {"json": {"image": in_base64(data)}}),
    ("/v1/engine/generate", ("uov_input_image",), lambda data: {"json": {"uov_input_image": in_base64(data)}}),
]


@pytest.mark.parametrize("file", FEW, ids=lambda file: f"{file.kind}: {file.name}")
@pytest.mark.parametrize(("path", "place", "send"), PLACES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_for_a_picture(
    watched: Watched, path: str, place: tuple[str | int, ...], send: Send, file: Hostile
) -> None:
    answer = watched.post(path, **send(file.make()))
    assert re.search(file.says, refusal(answer, *place))


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_thousands_of_frames_are_one_picture(watched: Watched, kind: str) -> None:
    answer = watched.post(INPAINT_FORM, files={"input_image": many_frames(kind)})
    if kind == "GIF":  # Its frames hold no pixel.
        assert refusal(answer, "input_image")
    else:
        assert answer.status_code == 200


def test_refused_pictures_do_not_pile_up(watched: Watched) -> None:
    """Neither as what a full collection would find, nor as what the allocator keeps for the next time."""
    body = b'{"input_image":"' + b"A" * (20 * MIB) + b'"}'
    before_mib = watched.memory_mib("VmRSS")
    for _ in range(5):
        refusal(watched.post(UPSCALE_JSON, content=body), "input_image")
    assert watched.memory_mib("VmRSS") - before_mib < 120, "each has 20 MiB as text and 15 as bytes"


# --------------------------------------------------------------------------------------------------------------- bodies

MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


def part(name: str, data: bytes, file_name: str = "") -> bytes:
    file = f'; filename="{file_name}"' if file_name else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"


def head_of(name: str, file_name: str = "") -> bytes:
    return part(name, b"", file_name)[:-2]


def streamed(*pieces: bytes | int) -> Iterator[bytes]:
    """The bytes as they are, and for each number so many MiB that are nowhere at once."""
    block = b"A" * MIB
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from (block for _ in range(piece))


def test_an_upload_of_200_mb(watched: Watched) -> None:
    body = streamed(part("uov_method", b"Vary (Subtle)"), head_of("input_image", "a.png"), 200, b"\r\n--b--\r\n")
    answer = watched.post(UPSCALE_FORM, content=body, headers=MULTIPART)
    assert "209715200 bytes, at most 67108864" in refusal(answer, "input_image")


def test_an_upload_of_200_mb_as_text(watched: Watched) -> None:
    body = streamed(part("uov_method", b"Vary (Subtle)"), head_of("input_image"), 200, b"\r\n--b--\r\n")
    answer = watched.post(UPSCALE_FORM, content=body, headers=MULTIPART)
    assert "texts of the form have more than" in refusal(answer, "input_image")


def test_texts_that_are_long_together(watched: Watched) -> None:
    pieces = [piece for name in ("prompt", "x", "y", "z") for piece in (head_of(name), 28, b"\r\n")]
    answer = watched.post(UPSCALE_FORM, content=streamed(*pieces, b"--b--\r\n"), headers=MULTIPART)
    assert "texts of the form have more than" in refusal(answer, "z")


@pytest.mark.parametrize("announced", [True, False])
def test_200_mb_of_json(watched: Watched, announced: bool) -> None:
    start = b'{"input_image":"'
    headers = {"Content-Length": str(len(start) + 200 * MIB + 2)} if announced else {}
    answer = watched.post(UPSCALE_JSON, content=streamed(start, 200, b'"}'), headers=headers)
    assert (answer.status_code, answer.json()) == (413, {"detail": "the body is larger than 67108864 bytes"})


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b' {"input_image":"  ', "is no picture"),
        ('{"prompt":"\N{GRINNING FACE}","input_image":"'.encode(), "is no picture"),
    ],
    ids=["blanks", "a character of four bytes"],
)
def test_the_longest_json(watched: Watched, start: bytes, says: str) -> None:
    answer = watched.post(UPSCALE_JSON, content=streamed(start, 63, b'"}'))
    assert says in refusal(answer, "input_image")


@pytest.mark.parametrize("character", ["\N{GRINNING FACE}", r"\ud83d\ude00", r"\"\u0416"])
def test_a_long_text_with_characters_that_no_picture_has(watched: Watched, character: str) -> None:
    answer = watched.post(UPSCALE_JSON, content=streamed(b'{"input_image":"AA', character.encode(), 63, b'"}'))
    assert (answer.status_code, "beyond Latin" in answer.json()["detail"]) == (413, True)


def test_the_longest_json_that_is_none(watched: Watched) -> None:
    answer = watched.post(UPSCALE_JSON, content=streamed('{"prompt":"\N{GRINNING FACE}","x":"'.encode(), 63))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "json_invalid"
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("start", [b"", "\N{GRINNING FACE}".encode()], ids=["letters", "a character of four bytes"])
def test_the_longest_text_of_a_form(watched: Watched, start: bytes) -> None:
    body = streamed(part("uov_method", b"Vary (Subtle)"), head_of("input_image"), start, 80, b"\r\n--b--\r\n")
    answer = watched.post(UPSCALE_FORM, content=body, headers=MULTIPART)
    assert refusal(answer, "input_image")


def test_a_form_of_escapes_only(watched: Watched) -> None:
    body = b"uov_method=Disabled&input_image=" + b"%41" * (4 * MIB)
    answer = watched.post(UPSCALE_FORM, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert "is no picture" in refusal(answer, "input_image")


@pytest.mark.parametrize("path", [INPAINT_JSON, "/v1/engine/generate"])
def test_a_long_text_that_is_not_used_is_not_written_down(watched: Watched, path: str) -> None:
    journal = watched.server.folder / "outputs" / "journal.db-wal"
    before = journal.stat().st_size
    answer = watched.post(path, json={"inpaint_additional_prompt": "a " * (4 * MIB)})
    assert answer.status_code == 200
    assert journal.stat().st_size < before + 4 * MIB


@pytest.mark.parametrize("field", ["style_selections", "outpaint_selections"])
def test_a_list_of_nothing(watched: Watched, field: str) -> None:
    body = streamed(head_of(field), b"," * (20 * MIB), b"\r\n--b--\r\n")
    answer = watched.post(INPAINT_JSON, content=body, headers=MULTIPART)
    assert refusal(answer, field) == "Input should be a valid list"


def test_a_form_in_a_codec_that_takes_hours(watched: Watched) -> None:
    body = part("prompt", b"a" * 1000 + b"-" + b"b" * (20 * MIB)) + b"--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b; charset=punycode"}
    answer = watched.post(INPAINT_JSON, content=body, headers=headers)
    assert "at most 20000" in refusal(answer, "prompt")


@pytest.mark.parametrize(
    ("body", "place", "says"),
    [
        (head_of("input_image", "a.png") + PICTURE, ("input_image",), "breaks off"),
        (head_of("input_mask", "a.png") + PICTURE[:20], ("input_mask",), "breaks off"),
        (head_of("input_image") + TEXT.encode(), ("input_image",), "breaks off"),
        (part("input_image", PICTURE, "a.png") + b"--b\r\nContent-Disposition: form", (), "breaks off"),
        (b"--c\r\n\r\n", (), "no form that can be read"),
        (b"--b\r\n\r\n\r\n--b--\r\n", (), "has no name"),
        (b"--b\r\nX: " + b"a" * MIB, (), "no form that can be read"),
        (b"--b\r\n" + b"X: 1\r\n" * 1000, (), "no form that can be read"),
    ],
    ids=["file", "mask", "text", "header", "other boundary", "no name", "long header", "many headers"],
)
def test_forms_that_are_not_whole(watched: Watched, body: bytes, place: tuple[str, ...], says: str) -> None:
    answer = watched.post(INPAINT_FORM, content=body, headers=MULTIPART)
    assert says in refusal(answer, *place)


@pytest.mark.parametrize(("file_name", "what"), [("", "200 fields"), ("a.png", "16 files")])
def test_forms_of_many_parts(watched: Watched, file_name: str, what: str) -> None:
    answer = watched.post(UPSCALE_FORM, content=part("x", b"1", file_name) * 10_000, headers=MULTIPART)
    assert (answer.status_code, answer.json()["detail"]) == (413, f"the form has more than {what}")


def test_a_form_without_a_boundary(watched: Watched) -> None:
    answer = watched.post(UPSCALE_FORM, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert "no form that can be read" in refusal(answer)


# ------------------------------------------------------------------------------------------------------------ addresses


def silent(request: Request) -> None:
    request.server.silent_until.wait(2 * FETCH_TIMEOUT_S)


def silent_after_the_header(request: Request) -> None:
    request.tell(200, {"Content-Length": 1000}, PICTURE[:10])
    request.wfile.flush()
    silent(request)


def trickling(request: Request) -> None:
    request.tell(200, {"Content-Length": len(PICTURE)})
    for byte in PICTURE:
        request.wfile.write(bytes([byte]))
        time.sleep(FETCH_TIMEOUT_S / 20)


def endless(request: Request) -> None:
    request.tell(200, {"Content-Type": "image/png"}, PICTURE)
    while True:
        request.wfile.write(bytes(MIB))


def packed_bomb(request: Request) -> None:
    request.tell(200, {"Content-Encoding": "gzip"}, PACKED_BOMB)


def page(request: Request) -> None:
    request.tell(200, {"Content-Type": "image/png"}, b"<!DOCTYPE html><html><body>Please log in</body></html>")


def lying(request: Request) -> None:
    request.tell(200, {"Content-Length": 10**12}, PICTURE)


ANSWERS: list[tuple[Callable[[Request], None], str]] = [
    (silent, "in full within"),
    (silent_after_the_header, "in full within"),
    (trickling, "in full within"),
    (endless, "more than 67108864 bytes|in full within"),
    (lying, "more than 67108864 bytes"),
    (packed_bomb, "is no picture"),
    (page, "is no picture"),
    (refused(404), "answered 404"),
    (refused(500), "answered 500"),
    (refused(204), "answered 204"),
    (sent(PICTURE, length=2 * len(PICTURE), stop_after=100), "cannot be reached"),
    (redirected("file:///etc/passwd"), "no proper http"),
    (redirected("ftp://pictures.test/a.png"), "no proper http"),
    (redirected("http://[::1"), "cannot be reached"),
]


@pytest.mark.parametrize(("answer", "says"), ANSWERS, ids=lambda value: getattr(value, "__name__", ""))
def test_addresses_that_give_no_picture(
    watched: Watched, addresses: FileServer, answer: Callable[[Request], None], says: str
) -> None:
    addresses.answers[:] = [answer]
    told = watched.post(UPSCALE_JSON, json={"input_image": addresses.url, **METHOD})
    assert re.search(says, refusal(told, "input_image"))


def test_an_address_that_leads_to_itself(watched: Watched, addresses: FileServer) -> None:
    addresses.answers[:] = [redirected("/file")] * 6
    told = watched.post(TEXT_WITH_PROMPTS, json={"image_prompts": [{"cn_img": addresses.url}]})
    assert "redirects more than 5 times" in refusal(told, "image_prompts", 0, "cn_img")


def test_several_addresses_without_an_end(watched: Watched, addresses: FileServer) -> None:
    addresses.answers[:] = [endless] * 4
    told = watched.post(PROMPT_JSON, json={"image_prompts": [{"cn_img": addresses.url}] * 4})
    assert re.search("67108864 bytes|in full within", refusal(told, "image_prompts", 0, "cn_img"))


def test_a_redirect_into_a_closed_network(watched: Watched, addresses: FileServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.2)
        addresses.answers[:] = [redirected(f"http://127.0.0.1:{inside.getsockname()[1]}/a.png")]
        told = watched.post(UPSCALE_JSON, json={"input_image": addresses.url, **METHOD})
        assert "network that this server does not fetch from" in refusal(told, "input_image")
        with pytest.raises(TimeoutError):
            inside.accept()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/a.png", "does not fetch from"),
        ("http://2130706433/a.png", "does not fetch from"),
        ("http://[::ffff:127.0.0.1]/a.png", "does not fetch from"),
        ("http://", "no proper http"),
        ("http://127.0.0.1:99999/", "no proper http"),
        ("file:///etc/passwd", "only http:// and https://"),
        ("/etc/passwd", "is no picture|neither base64"),
        ("http://127.0.0.1:8888/files/../journal.db", "does not fetch from"),
        ("http://127.0.0.1:8888/files/2025-01-01/none-0.png", "does not fetch from"),
    ],
)
def test_addresses_that_are_not_asked(watched: Watched, url: str, says: str) -> None:
    told = watched.post(UPSCALE_FORM, data={"input_image": url, **METHOD})
    assert re.search(says, refusal(told, "input_image"))


# ----------------------------------------------------------------------------- closed networks, without reaching any

PUBLIC = "93.184.215.14"
NAMES = {"pictures.test": PUBLIC, "inner.test": "10.1.2.3", "metadata.test": "169.254.169.254", "six.test": "fd00::1"}
CLOSED = ["inner.test", "metadata.test", "six.test", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254",
          "[fe80::1]", "[::ffff:192.168.0.1]", "100.64.0.1", "0.0.0.0"]  # fmt: skip


class NamedHouse(served.House):
    """A house in a network of names, in which every public address redirects to where its path says."""

    def open(self) -> Services:
        self.connected: list[str] = []

        async def resolve(host: str, port: int) -> Sequence[IPAddress]:
            return [ip_address(NAMES.get(host, host))]

        def answer(request: httpx.Request) -> httpx.Response:
            self.connected.append(request.url.host)
            return httpx.Response(302, headers={"Location": f"http://{request.url.path.strip('/')}/"})

        def guarded() -> GuardedTransport:
            return GuardedTransport(httpx.MockTransport(answer), resolve=resolve)

        services = super().open()
        fetch = Fetcher(FetchLimits(10**6, 5, 3), guarded).fetch
        return replace(services, inputs=InputImages([self.outputs], fetch, ImageLimits(10**6, 10**6)))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NamedHouse, TestClient]]:
    house = NamedHouse(tmp_path_factory.mktemp("named"))
    with served.serving(house) as client:
        yield house, client


@pytest.mark.parametrize("host", CLOSED)
def test_closed_networks_are_refused_by_name_and_by_redirect(named: tuple[NamedHouse, TestClient], host: str) -> None:
    house, client = named
    for url, connected in ((f"http://{host}/a.png", []), (f"http://pictures.test/{host}", [PUBLIC])):
        house.connected.clear()
        answer = client.post(INPAINT_JSON, json={"input_image": TEXT, "input_mask": url})
        assert "network that this server does not fetch from" in refusal(answer, "input_mask")
        assert house.connected == connected


def test_waiting_callers_hold_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many callers as the queue takes, each with pictures of any size."""
    seen: list[weakref.ref[Any]] = []
    read_all = InputImages.read_all

    async def watched_read(inputs: InputImages, pictures: Any) -> Any:
        read = await read_all(inputs, pictures)
        seen.extend(weakref.ref(pixels) for pixels in read.values())
        return read

    monkeypatch.setattr(InputImages, "read_all", watched_read)
    house = served.House(tmp_path, engine=served.HeldEngine())
    with served.serving(house) as client:
        answer = served.in_background(
            lambda: client.post(INPAINT_JSON, json={"input_image": TEXT, "outpaint_selections": "Left"})
        )
        house.engine.begin()
        served.wait_until(lambda: [pixels() for pixels in seen] == [None])
        house.engine.play(Finished())
        assert answer().status_code == 200


# ---------------------------------------------------------------------------------------------- and then all is well


def test_callers_who_go_away_leave_nothing(watched: Watched) -> None:
    port = watched.server.client.base_url.port
    assert port is not None
    head = f"POST {UPSCALE_FORM} HTTP/1.1\r\nHost: x\r\nContent-Type: {MULTIPART['Content-Type']}\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{head}Content-Length: {50 * MIB}\r\n\r\n".encode() + head_of("input_image", "a"))
            connection.sendall(bytes(4 * MIB))
    until(lambda: not watched.unnamed_files())


def test_the_server_still_works(watched: Watched) -> None:
    """After all of the above."""
    answer = watched.post(UPSCALE_FORM, files={"input_image": PICTURE}, data=METHOD)
    assert answer.json()[0]["finish_reason"] == "SUCCESS"
    assert watched.memory_mib("VmRSS") - watched.idle_mib < MAX_KEPT_MIB
    assert b"Traceback" not in (watched.server.folder / "log").read_bytes()
