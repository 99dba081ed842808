"""Hostile requests by class, each with the answer that is expected: for all dialects, over HTTP, without a picture.

``refused`` are answers that name what was wrong; ``ignored`` are those where the contract has the server go on with its
own default, so that what was sent must be without any effect. Pictures that are none, and addresses that lead into
closed networks, have tables of their own (``tests/fooocusapi/hostile.py``, ``test_fetch.py``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from tests.fooocusapi.hostile import file_of

CLASSIC = "/v1/generation/text-to-image"
UNIFIED = "/v1/engine/generate"
STAGED = "/v1/jobs"
REPAINT = "/v2/generation/image-inpaint-outpaint"
MODEL = "600423083519508503"
KEY = "attack-key"
TODAY = "2025-02-23"
A_PICTURE = base64.b64encode(file_of(Image.new("RGB", (64, 64)), "PNG")).decode()


@dataclass(frozen=True)
class Attack:
    """One request. ``statuses``: those that may be answered; ``names``: what the answer names as wrong."""

    kind: str
    method: str
    path: str
    statuses: tuple[int, ...]
    body: Any = None
    names: str = ""
    headers: Mapping[str, str | bytes] = field(default_factory=dict)
    is_ignored: bool = False
    """Whether the job is done, and must be done as if nothing had been said."""

    def __str__(self) -> str:
        shown = self.body if self.body is not None else dict(self.headers)
        return f"{self.kind}: {self.method} {self.path} {shown!r}"[:90]


# ------------------------------------------------------------------------------------------------- files by addresses

PATHS = (
    "../journal.db",
    "../../journal.db",
    "%2e%2e/journal.db",
    "%2e%2e%2fjournal.db",
    "..%2fjournal.db",
    "..%5cjournal.db",
    "..\\journal.db",
    "%252e%252e%252fjournal.db",
    "%c0%ae%c0%ae/journal.db",
    "%e0%80%ae%e0%80%ae/secret.png",
    "..;/secret.png",
    ".../secret.png",
    "....//secret.png",
    "./../secret.png",
    f"{TODAY}/../../secret.png",
    f"{TODAY}/%2e%2e/%2e%2e/secret.png",
    f"{TODAY}/..%2f..%2fsecret.png",
    f"{TODAY}/link.png",
    f"{TODAY}/linked/secret.png",
    f"{TODAY}/notes.txt",
    f"{TODAY}/.hidden.png",
    f"{TODAY}/x-0.png%00",
    f"{TODAY}/x-0.png%00.jpg",
    f"{TODAY}/x-0.png::$DATA",
    f"{TODAY}/x-0.png.",
    f"{TODAY}/x-0.png%20",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "C:/Windows/win.ini",
    "C:%5cWindows%5cwin.ini",
    "%5c%5chost%5cshare%5cx.png",
    "file:///etc/passwd",
    "con.png",
    "nul.png",
    "aux",
    "~/secret.png",
    "%00",
    "%0d%0aX-Evil: 1",
    "%ff%fe.png",
    "%u002e%u002e/secret.png",
    "secret.png",
    "journal.db",
    "proc/self/environ",
)


def _files() -> Iterator[Attack]:
    for prefix in ("files", "outputs", "inputs"):
        for path in PATHS:
            yield Attack("file route", "GET", f"/{prefix}/{path}", (404,))


# ------------------------------------------------------------------------------------------------------ names of files

SAVE_NAMES = (
    "../x",
    "..",
    ".",
    "a/../../x",
    "a/./x",
    "/etc/x",
    "/x",
    "//x",
    "a//x",
    "\\x",
    "..\\x",
    "a\\..\\x",
    "C:x",
    "C:\\x",
    "C:/x",
    "\\\\host\\x",
    "x\0y",
    "x\ny",
    "x\r\ny",
    "x\ty",
    "x\x1b[31my",
    "x\u202ey",
    "x\u2028y",
    "con",
    "NUL",
    "com1.txt",
    "a/LPT9/x",
    "aux .x",
    "conin$",
    "x?y",
    "x*y",
    'x"y',
    "x<y>",
    "x|y",
    "x.",
    "a /x",
    ".htaccess",
    "a/.ssh/x",
    "x" * 201,
    "\u00e9" * 130,
    "~\0/x",
    "x:$DATA",
)
NAMES_OF_FILES = (
    "../secret.safetensors",
    "../../secret.safetensors",
    "..\\secret.safetensors",
    "/etc/passwd",
    "//etc/passwd",
    "C:\\Windows\\win.ini",
    "file:///etc/passwd",
    "http://127.0.0.1/x.safetensors",
    "%2e%2e/secret.safetensors",
    "a/../../secret.safetensors",
    "linked/secret.safetensors",
    "secret.safetensors\0.png",
    "con",
    "__import__('os').system('true')",
    "x\r\nX-Evil: 1",
)


def _names() -> Iterator[Attack]:
    for name in SAVE_NAMES:
        yield Attack("save_name", "POST", CLASSIC, (422,), {"save_name": name}, "save_name")
        yield Attack("save_name", "POST", UNIFIED, (422,), {"save_name": name}, "save_name")
    for name in NAMES_OF_FILES:
        for path in (CLASSIC, UNIFIED):
            yield Attack("checkpoint", "POST", path, (200,), {"base_model_name": name}, is_ignored=True)
            yield Attack("refiner", "POST", path, (200,), {"refiner_model_name": name}, is_ignored=True)
            loras = [{"model_name": name, "weight": 1, "enabled": True}]
            yield Attack("LoRA", "POST", path, (200,), {"loras": loras}, is_ignored=True)
            yield Attack("style", "POST", path, (200,), {"style_selections": [name]})
        advanced = {"advanced_params": {"vae_name": name}}
        yield Attack("autoencoder", "POST", CLASSIC, (422,), advanced, "vae_name")
        yield Attack("autoencoder", "POST", UNIFIED, (422,), {"vae_name": name}, "vae_name")
        yield Attack("preset", "POST", UNIFIED, (200,), {"preset": name}, is_ignored=True)
        yield Attack("checkpoint", "POST", STAGED, (200,), _staged(sdModel=name), is_ignored=True)
        yield Attack("autoencoder", "POST", STAGED, (400,), _staged(sdVae=name), "sdVae")
        lora = {"items": [{"loraModel": name, "weight": 1}]}
        yield Attack("LoRA", "POST", STAGED, (400,), _staged(lora=lora), "lora")
        sent = {"image": A_PICTURE, "mask_model": name}
        yield Attack("mask model", "POST", "/v1/tools/generate_mask", (422,), sent, "mask_model")
        start = {"imageResourceId": name, "count": 1}
        yield Attack("resource", "POST", STAGED, (400,), _staged(start), "imageResourceId")


def _staged(start: Mapping[str, Any] | None = None, **diffusion: Any) -> dict[str, Any]:
    painted = {"width": 512, "height": 512, "prompts": [{"text": "x"}], "sdModel": MODEL, "steps": 2, **diffusion}
    first = {"type": "INPUT_INITIALIZE", "inputInitialize": start or {"seed": "42", "count": 1}}
    told = json.dumps([start, diffusion], default=repr)
    return {
        "requestId": hashlib.sha256(told.encode()).hexdigest(),
        "stages": [first, {"type": "DIFFUSION", "diffusion": painted}],
    }


NOTHING_SAID: dict[str, Any] = {CLASSIC: {}, UNIFIED: {}, STAGED: _staged()}
"""The bodies of jobs that name nothing."""


# ------------------------------------------------------------------------------------------------------------ addresses

ADDRESSES = (
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://127.0.0.1/x.png",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:11211/stat",
    "ldap://127.0.0.1/",
    "jar:http://127.0.0.1!/x.png",
    "javascript:alert(1)",
    "php://filter/read=x",
    "\\\\127.0.0.1\\share\\x.png",
    "/etc/passwd",
    "../../etc/passwd",
    "data:text/html;base64,PHNjcmlwdD4=",
    "data:image/svg+xml,<svg onload='x'/>",
    "http://127.0.0.1/x.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/x.png",
    "http://0x7f000001/x.png",
    "http://user:pass@127.0.0.1/x.png",
    "http:///x.png",
    "http://\r\nHost: evil/",
    "https://127.0.0.1:22/",
    "unix:/var/run/docker.sock",
)


def _addresses() -> Iterator[Attack]:
    for address in ADDRESSES:
        yield Attack("address", "POST", REPAINT, (422,), {"input_image": address}, "input_image")
        unified = {"input_image_checkbox": True, "current_tab": "uov", "uov_method": "vary (subtle)"}
        yield Attack("address", "POST", UNIFIED, (422,), {**unified, "uov_input_image": address}, "uov_input_image")
        if not any(local in address for local in ("http://127", "https://127", "@127", "[::1]")):
            body = {**_staged(), "requestId": f"to {address}", "notifyUrl": address}
            yield Attack("address", "POST", STAGED, (400,), body, "notifyUrl")


# ------------------------------------------------------------------------------------------------- bodies that are none

DEEP = 100_000
BODIES = (
    b'{"prompt":' + b"[" * DEEP + b"]" * DEEP + b"}",  # deep lists
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,  # deep objects
    b'{"prompt":[' + b"1," * 300_000 + b"1]}",  # many values
    b'{"image_number":NaN}',  # not a number
    b'{"sharpness":Infinity}',  # infinity
    b'{"sharpness":-Infinity}',  # minus infinity
    b'{"sharpness":1e999}',  # a number beyond all
    b'{"image_number":' + b"9" * 5000 + b"}",  # digits
    b'{"image_seed":' + b"9" * 5000 + b"}",  # digits of a seed
    b'[{"prompt":"x"}]',  # list
    b'"prompt"',  # text
    b'{"prompt":"x',  # broken off
    b'{"prompt":"x"} // more',  # comment
    b'{"prompt":"x"}{"prompt":"y"}',  # two values
    b'{"prompt":"\xff\xfe"}',  # bytes
    b"+AHs-",  # UTF-7
    b'{"prompt":"a\x00b"}',  # control characters
    b'{"prompt":{"$gt":""}}',  # an object for a text
    b'{"prompt":["x"]}',  # a list for a text
    b'{"image_number":{"__class__":"x"}}',  # an object for a number
    b'{"image_number":-1}',  # a negative number
    b'{"image_number":1000000000}',  # far too many pictures
    b'{"prompt":"' + b"a" * 20_001 + b'"}',  # a long prompt
    b'{"negative_prompt":"' + b"a" * 20_001 + b'"}',  # a long negative prompt
    b'{"aspect_ratios_selection":"' + b"9" * 4000 + b"*" + b"9" * 4000 + b'"}',  # a size of words
    b'{"webhook_url":"http://x/' + b"a" * 100_000 + b'"}',  # a long address to tell
)


def _bodies() -> Iterator[Attack]:
    for content in BODIES:
        for path in (CLASSIC, UNIFIED):
            yield Attack("body", "POST", path, (413, 422), content)
        yield Attack("body", "POST", STAGED, (400, 413), content)


# ----------------------------------------------------------------------------------------------------------------- keys

KEYS: tuple[Mapping[str, str | bytes], ...] = (
    {},
    {"X-API-KEY": ""},
    {"X-API-KEY": KEY[:-1]},
    {"X-API-KEY": KEY + "x"},
    {"X-API-KEY": KEY.upper()},
    {"X-API-KEY": f"{KEY},other"},
    {"X-API-KEY": f'"{KEY}"'},
    {"X-API-KEY": f"Bearer {KEY}"},
    {"X-API-KEY": b"\xff\xfe"},
    {"X-API-KEY": "null"},
    {"X-API-KEY": "*"},
    {"X-API-KEY": "' OR '1'='1"},
    {"X_API_KEY": KEY},
    {"API-KEY": KEY},
    {"Cookie": f"X-API-KEY={KEY}"},
    {"Authorization": f"Bearer {KEY}"},
    {"Authorization": "Basic " + KEY},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Original-URL": "/ping"},
    {"X-Rewrite-URL": "/ping"},
    {"Host": "127.0.0.1"},
)
AROUND = (
    "/v1/generation/job-queue?X-API-KEY=" + KEY,
    "/v1/generation/job-queue?/ping",
    "/v1/generation/job-queue#/ping",
    "/v1/generation/job-queue/",
    "//v1/generation/job-queue",
    "/v1//generation/job-queue",
    "/ping/../v1/generation/job-queue",
    "/ping/%2e%2e/v1/generation/job-queue",
    "/files/../v1/generation/job-queue",
    "/files/%2e%2e/v1/generation/job-queue",
    "/docs/assets/../../v1/generation/job-queue",
    "/docs/assets/%2e%2e/%2e%2e/v1/generation/job-queue",
    "/V1/generation/job-queue",
    "/v1/generation/job-queue%20",
    "/v1/generation/job-queue%00",
    "/v1/generation/job-queue;/ping",
    "/%76%31/generation/job-queue",
    "/v1/jobs/../generation/job-queue",
)


def _keys() -> Iterator[Attack]:
    """Of a server with a key: nothing is told without it."""
    for headers in KEYS:
        if "Authorization" not in headers or KEY not in str(headers["Authorization"]):
            yield Attack("key", "POST", STAGED, (401, 403), {}, headers=headers)
        yield Attack("key", "GET", "/v1/generation/job-queue", (403,), headers=headers)
        yield Attack("key", "POST", CLASSIC, (403,), {"prompt": "x"}, headers=headers)
    for path in AROUND:
        yield Attack("way around the key", "GET", path, (403, 404, 401))


# ----------------------------------------------------------------------------------------------------- methods, headers

FORGED = "2025-01-01 00:00:00 ERROR   [-] fooocusapi: forged"
REQUESTS = (
    Attack("log", "POST", CLASSIC, (200,), {"prompt": f"x\n{FORGED}"}),
    Attack("log", "POST", UNIFIED, (200,), {"prompt": f"x\r\n{FORGED}\x1b[2J"}),
    Attack("log", "POST", STAGED, (400,), {"requestId": f"x\n{FORGED}", "stages": []}),
    Attack("log", "POST", CLASSIC, (200,), {f"x\n{FORGED}": 1}),
    Attack("log", "GET", f"/x%0a{FORGED}", (404,)),
    Attack("log", "GET", f"/files/%0d%0a{FORGED}.png", (404,)),
    Attack("log", "GET", "/ping", (200,), headers={"X-Request-ID": FORGED}),
    Attack("log", "GET", "/ping", (200,), headers={"X-Request-ID": b"a\x85b"}),
    Attack("header", "GET", "/v1/generation/query-job?job_id=x%0d%0aX-Evil:%201", (404,)),
    Attack("header", "POST", CLASSIC, (422,), {"save_name": "x\r\nX-Evil: 1"}, "save_name"),
    Attack("header", "POST", CLASSIC, (200,), {"prompt": "x\r\nX-Evil: 1", "require_base64": False}),
    Attack("host", "POST", CLASSIC, (200,), {"prompt": "x"}, headers={"Host": "evil.example"}),
    Attack("host", "POST", CLASSIC, (200,), {"prompt": "x"}, headers={"X-Forwarded-Host": "evil.example"}),
    Attack("host", "POST", UNIFIED, (200,), {"prompt": "x"}, headers={"Host": "evil.example/../.."}),
    Attack("host", "POST", UNIFIED, (200,), {"prompt": "x"}, headers={"Forwarded": "host=evil.example"}),
    Attack("method", "TRACE", "/ping", (405,)),
    Attack("method", "PUT", "/files/x.png", (405,), b"x"),
    Attack("method", "DELETE", f"/files/{TODAY}/x-0.png", (405,)),
    Attack("method", "PROPFIND", "/files/", (404, 405)),
    Attack("method", "GET", CLASSIC, (405,)),
    Attack("method", "GET", UNIFIED, (405,)),
    Attack("method", "PUT", STAGED, (405,), b"{}"),
    Attack("identifier", "GET", "/v1/generation/query-job?job_id=../../etc/passwd", (404,), names="Job not found"),
    Attack("identifier", "GET", "/v1/generation/query-job?job_id=%00", (404,), names="Job not found"),
    Attack("identifier", "GET", "/v1/generation/query-job?job_id=' OR 1=1 --", (404,), names="Job not found"),
    Attack("identifier", "GET", "/v1/generation/query-job?job_id=" + "a" * 8000, (404,), names="Job not found"),
    Attack("identifier", "GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", (400, 404)),
    Attack("identifier", "GET", "/v1/jobs/99999999999999999999999999", (400, 404)),
    Attack("identifier", "GET", "/v1/jobs/-1", (400, 404)),
    Attack("identifier", "GET", "/v1/models/..%2f..%2fetc%2fpasswd", (404,)),
    Attack("identifier", "GET", "/v1/resource/image/x?expires=9&signature=x", (401, 403, 404)),
    Attack("identifier", "PUT", "/v1/resource/image/..%2fx?expires=9999999999&signature=x", (401, 403, 404), b"x"),
    Attack("identifier", "GET", "/tasks/../../etc/passwd", (404,)),
    Attack("identifier", "GET", "/tasks/%27%20OR%201=1", (200,), names="[]"),
    Attack(
        "range", "GET", f"/files/{TODAY}/x-0.png", (200, 206, 400, 416), headers={"Range": "bytes=" + "0-0," * 2000}
    ),
    Attack("range", "GET", f"/files/{TODAY}/x-0.png", (416, 400), headers={"Range": "bytes=9" + "9" * 5000 + "-"}),
    Attack("range", "GET", f"/files/{TODAY}/x-0.png", (400, 416), headers={"Range": "bytes=--1"}),
    Attack("content type", "POST", CLASSIC, (200, 422), b"{}", headers={"Content-Type": "x" * 5000}),
    Attack("content type", "POST", CLASSIC, (400, 422), b"x", headers={"Content-Type": "multipart/form-data"}),
    Attack(
        "content type",
        "POST",
        "/v1/generation/image-upscale-vary",
        (400, 413, 422),
        b"--" + b"-" * 50_000,
        headers={"Content-Type": "multipart/form-data; boundary=" + "-" * 5000},
    ),
    Attack("encoding", "POST", CLASSIC, (400, 415, 422), b"\x1f\x8b\0", headers={"Content-Encoding": "gzip"}),
)

ATTACKS = (*_files(), *_names(), *_addresses(), *_bodies(), *REQUESTS)
"""Against a server that is open to all."""
LOCKED = (*_keys(),)
"""Against a server with a key."""
