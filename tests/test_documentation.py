"""The pages under ``docs/`` and the README tell all there is, and nothing that is not there."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import SecretStr

from fooocus_core.presets.config_file import OTHER_KEYS, PATH_KEYS, SERVER_KEYS, TEXT_KEYS
from fooocusapi.flags import RENDERER_FLAGS, WITHOUT_EFFECT, WITHOUT_EFFECT_VALUED
from fooocusapi.settings import PREFIX, Settings
from fooocusapi.surfaces.classic.enhance_bodies import EnhanceCtrlNetsJson, ImageEnhanceRequestJson
from fooocusapi.surfaces.classic.picture_bodies import (
    ImagePromptJson,
    ImgPromptRequestJson,
    ImgUpscaleOrVaryRequestJson,
)
from fooocusapi.surfaces.classic.schemas import CommonRequest
from fooocusapi.surfaces.fields import FinerControls
from fooocusapi.surfaces.unified.schemas import GenerateRequest
from tests.fooocusapi.served import FIRST_ID, House, finished, query, serving

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SERVER = "http://127.0.0.1:8888"
SERVER_FOLDERS = [
    "",
    "jobs",
    "images",
    "surfaces",
    "surfaces/classic",
    "surfaces/unified",
    "surfaces/tams",
    "surfaces/tools",
]


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def default_text(name: str) -> str:
    """A setting's default as the table shows it."""
    value = Settings.model_fields[name].default
    value = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`" if str(value) else "empty"


def setting_row(name: str) -> str:
    return f"| `--{name.replace('_', '-')}` | `{PREFIX}{name.upper()}` | {default_text(name)} | "


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_row_with_its_default(name: str) -> None:
    assert setting_row(name) in read("configuration.md")


def test_no_row_is_of_a_setting_that_is_gone() -> None:
    rows = set(re.findall(rf"^\| `--[a-z0-9-]+` \| `{PREFIX}([A-Z0-9_]+)`", read("configuration.md"), re.MULTILINE))
    assert rows == {name.upper() for name in Settings.model_fields}


def test_the_older_names_of_variables_are_told() -> None:
    aliases = [field.validation_alias for field in Settings.model_fields.values() if field.validation_alias]
    choices = [str(choice) for alias in aliases for choice in alias.choices]  # type: ignore[union-attr]
    older = {choice for choice in choices if choice not in Settings.model_fields and not choice.startswith(PREFIX)}
    assert older == {"API_PORT", "FOOOCUS_DB_CONF", "HF_MIRROR"}
    assert all(f"`{name}`" in read("configuration.md") for name in older)


@pytest.mark.parametrize("flag", ["--always-cpu", *RENDERER_FLAGS, *WITHOUT_EFFECT, *WITHOUT_EFFECT_VALUED])
def test_every_foreign_flag_is_told(flag: str) -> None:
    assert re.search(rf"`{flag}[` ]", read("configuration.md"))


def test_every_key_of_fooocus_is_told() -> None:
    assert not [key for key in (*PATH_KEYS, *SERVER_KEYS) if f"`{key}`" not in read("configuration.md")]
    assert not [key for key in (*TEXT_KEYS, *OTHER_KEYS) if f"`{key}`" not in read("models.md")]


def parts(folder: str) -> set[str]:
    """The modules of a package and, with a slash behind, its folders."""
    inside = [path for path in (ROOT / folder).iterdir() if not path.name.startswith("__")]
    return {path.stem for path in inside if path.suffix == ".py"} | {
        f"{path.name}/" for path in inside if path.is_dir()
    }


@pytest.mark.parametrize("folder", ["fooocus_core", *(f"fooocusapi/{folder}" for folder in SERVER_FOLDERS)])
def test_every_part_of_the_house_is_drawn(folder: str) -> None:
    page = CODE_BLOCK.sub("", read("architecture.md"))
    assert not {part for part in parts(folder) if f"`{part}`" not in page}


def test_no_part_is_drawn_that_is_gone() -> None:
    """Whatever the two tables of parts name is there."""
    known = {part for folder in SERVER_FOLDERS for part in parts(f"fooocusapi/{folder}")} | parts("fooocus_core")
    _, core, server = read("architecture.md").split("\n## fooocus")
    rows = [row for section in (core, server) for row in section.splitlines() if row.startswith("| ")]
    drawn = {name for row in rows for name in re.findall(r"`([a-z_]+/?)`", row)}
    assert len(drawn) > 40
    assert not drawn - known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_commands_that_show_a_promise_name_what_is_there() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:tests|benchmarks)/[\w./]+", page)
    assert len(named) > 15
    assert not [path for path in named if not (ROOT / path).exists()]
    promised = page.partition("## What is promised")[2].partition("## What is not")[0]
    rows = [row for row in promised.splitlines() if row.startswith("| **")]
    assert all("`pytest tests/" in row for row in rows)


def anchors(page: Path) -> set[str]:
    """The anchors that headings get: lower case, blanks as dashes, marks left out."""
    headings = HEADING.findall(CODE_BLOCK.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ----------------------------------------------------------------------------------------------------------------- API


@pytest.fixture
def client(tmp_path: Path) -> Any:
    with serving(House(tmp_path)) as client:
        yield client


def test_every_path_is_told_and_none_that_is_gone(client: TestClient) -> None:
    page = read("api.md")
    published = client.get("/openapi.json").json()["paths"]
    told = set(re.findall(r"`(?:(?:GET|POST) )?(/(?:v1/|files/|outputs/|inputs/|tasks)[^`\s?]*)`", page))
    own = ("/v1/", "/files/", "/outputs/", "/inputs/", "/tasks")
    assert told - {"/v1/", "/files/", "/outputs/", "/inputs/"} == {path for path in published if path.startswith(own)}
    assert all(f" {path}`" in page for path in published)


SENT = (
    CommonRequest,
    ImagePromptJson,
    ImgUpscaleOrVaryRequestJson,
    ImgPromptRequestJson,
    EnhanceCtrlNetsJson,
    ImageEnhanceRequestJson,
    GenerateRequest,
)
"""Between them they have every field that is taken from JSON."""


FIELDS = dict.fromkeys(name for body in SENT for name in body.model_fields)


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in FinerControls.model_fields])
def test_every_field_is_told(field: str) -> None:
    assert re.search(rf"^\|[^|]*`{field}`", read("api.md"), re.MULTILINE)


class Call(NamedTuple):
    """A curl line in its parts. ``status`` is 200 unless a comment behind the line says otherwise."""

    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    form: dict[str, str]
    status: int


def calls(page: str) -> list[Call]:
    """The curl lines of a page, in order."""
    text = "\n".join(SHELL_BLOCK.findall(page)).replace("\\\n", " ")
    return [read_call(line) for line in text.splitlines() if line.startswith("curl ")]


def read_call(line: str) -> Call:
    command, _, comment = line.partition("  # ")
    words = iter(shlex.split(command)[1:])
    method, address, headers, body, form = "", "", {}, None, {}
    for word in words:
        match word:
            case "-s" | "-sN":
                continue
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words)
            case "-F":
                name, _, value = next(words).partition("=")
                form[name] = value
            case "-o":
                next(words)
            case _:
                assert not address, f"not understood: {line}"
                address = word
    assert address.startswith(SERVER), line
    status = int(comment) if comment else 200
    method = method or ("POST" if body or form else "GET")
    return Call(method, address.removeprefix(SERVER), headers, body, form, status)


def sent(example: Call, picture: str) -> dict[str, Any]:
    """The body of a call as the client sends it; every file is the same small picture."""
    if not example.form:
        return {"content": example.body and example.body.replace("$PICTURE", picture)}
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG")
    files = {name: file.getvalue() for name, value in example.form.items() if value.startswith("@")}
    return {"files": files, "data": {name: value for name, value in example.form.items() if name not in files}}


def test_the_examples_work(tmp_path: Path) -> None:
    """In their order; ``$JOB`` is the first job, ``$TASK`` a task, ``$STAGED`` a staged job, ``$PICTURE`` a file."""
    house = House(tmp_path)
    task, staged = "", ""
    examples = calls(read("api.md")) + calls((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(examples) > 10
    with serving(house) as client:
        for example in examples:
            picture = house.files[-1] if house.files else ""
            path = (
                example.path.replace("$JOB", FIRST_ID)
                .replace("$PICTURE", picture)
                .replace("$TASK", task)
                .replace("$STAGED", staged)
            )
            answer = client.request(example.method, path, headers=example.headers, **sent(example, picture))
            assert answer.status_code == example.status, (example, answer.text)
            assert "Not found" not in answer.text
            if example.path.startswith("/v1/engine/generate") and "task_id" in answer.text:
                task = answer.json()["task_id"]
            if example.path == "/v1/jobs":
                staged = answer.json()["job"]["id"]


def test_the_answers_have_the_shape_that_is_shown(client: TestClient) -> None:
    shown = [
        json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", read("api.md"), re.MULTILINE | re.DOTALL)
    ]
    picture, job, queue, _, record, refused = shown
    body = {"prompt": "a red apple", "image_seed": 7}
    real = client.post("/v1/generation/text-to-image", json=body).json()
    assert [list(element) for element in real] == [list(element) for element in picture]
    assert list(query(client)) == list(job)
    assert finished(client)["job_result"] == real
    assert list(client.get("/v1/generation/job-queue").json()) == list(queue)
    assert list(client.post("/v1/engine/generate", json=body).json()) == list(record)
    assert client.post("/v1/generation/text-to-image", json=refused["body"]).json() == refused
