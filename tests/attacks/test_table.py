"""The table of hostile requests against the application as a process has it; the engine alone is pretended."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fooocus_core.plan import Plan
from fooocusapi.app import create_app
from fooocusapi.runtime import Runtime
from fooocusapi.settings import Settings
from tests.attacks.table import ATTACKS, CLASSIC, KEY, LOCKED, NOTHING_SAID, TODAY, Attack
from tests.fooocusapi.fakes import ScriptedEngine
from tests.fooocusapi.served import wait_until

SECRET = b"what nobody shall see"
MAX_ANSWER_BYTES = 20_000


class Fortress:
    """One server, what it has on disk, and what its engine was asked for."""

    def __init__(self, root: Path, apikey: str = "") -> None:
        self.root = root
        self.engine = ScriptedEngine()
        self.settings = Settings(
            apikey=apikey,  # type: ignore[arg-type]
            models_root=root / "models",
            output_path=root / "outputs",
            styles_path=root / "styles",
            wildcards_path=root / "words",
            presets_path=root / "presets",
            config_path=root / "config.txt",
            queue_size=10_000,
        )
        self.lines: list[str] = []
        """What was logged."""
        self._plain: dict[str, Any] = {}
        self._lay_out()
        self.before = self.files()
        self.runtime = Runtime(self.settings, lambda *_: self.engine)

    def _lay_out(self) -> None:
        """Secrets beside everything that may be named, and links that lead to them."""
        day = self.root / "outputs" / "files" / TODAY
        for folder in (day, self.root / "models" / "checkpoints", self.root / "models" / "loras"):
            folder.mkdir(parents=True)
        for secret in (
            self.root / "outputs" / "secret.png",
            self.root / "outputs" / "files" / "secret.txt",
            self.root / "secret.safetensors",
            self.root / "models" / "secret.safetensors",
            day / "notes.txt",
            day / ".hidden.png",
        ):
            secret.write_bytes(SECRET)
        (day / "link.png").symlink_to(self.root / "outputs" / "secret.png")
        (day / "linked").symlink_to(self.root / "outputs")
        (day / "x-0.png").write_bytes(b"a picture")
        for kind in ("checkpoints", "loras", "vae"):
            (self.root / "models" / kind).mkdir(exist_ok=True)

    def plain(self, client: TestClient, attack: Attack) -> Any:
        """What is planned where nothing is said."""
        if attack.path not in self._plain:
            self.engine.plans.clear()
            ask(client, replace(attack, body=NOTHING_SAID[attack.path]))
            wait_until(lambda: bool(self.engine.plans))
            self._plain[attack.path] = shape(self.engine.plans[0])
        return self._plain[attack.path]

    def files(self) -> set[Path]:
        """Everything that is on disk, but for the server's own records."""
        return {path for path in self.root.rglob("*") if "journal.db" not in path.name}


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Fortress:
    return Fortress(tmp_path_factory.mktemp("fortress"))


class Lines(logging.Handler):
    """Keeps what is logged as it is written, but for traces of our own."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@pytest.fixture(scope="module")
def client(fortress: Fortress) -> Iterator[TestClient]:
    handler = Lines(fortress.lines)
    logging.getLogger("fooocusapi").setLevel(logging.DEBUG)
    for package in ("fooocusapi", "fooocus_core"):
        logging.getLogger(package).addHandler(handler)
    yield from serving(fortress)
    logging.getLogger("fooocusapi").setLevel(logging.NOTSET)
    for package in ("fooocusapi", "fooocus_core"):
        logging.getLogger(package).removeHandler(handler)


def serving(fortress: Fortress) -> Iterator[TestClient]:
    with TestClient(create_app(fortress.settings, fortress.runtime.open), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").json()["status"] != "starting")
        yield client


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    yield from serving(Fortress(tmp_path_factory.mktemp("fortress"), KEY))


def shape(plan: Plan) -> Any:
    """A plan but for what differs from job to job."""
    values = plan.to_json()
    return [{**stage, "seed": 0} for stage in values["stages"]]


def ask(client: TestClient, attack: Attack) -> httpx.Response:
    sent = {"content": attack.body} if isinstance(attack.body, bytes) else {"json": attack.body}
    if attack.body is None:
        sent = {}
    return client.request(attack.method, attack.path, headers=dict(attack.headers), **sent)  # type: ignore[arg-type]


def check(answer: httpx.Response, attack: Attack) -> None:
    """What holds of every answer, beside its status."""
    shown = f"{answer.status_code} {answer.text[:500]}"
    assert answer.status_code in attack.statuses, shown
    assert attack.names in answer.text, shown
    assert SECRET not in answer.content
    assert "Traceback" not in answer.text
    assert "fortress" not in answer.text, "no path of this machine"
    assert "evil" not in str(answer.headers).lower()
    assert "http://evil" not in answer.text
    assert len(answer.content) < MAX_ANSWER_BYTES
    if answer.status_code >= 400 and answer.content and attack.kind != "range":
        assert answer.headers["content-type"] == "application/json"


def test_the_table_is_long_and_holds_no_request_twice() -> None:
    assert len({(attack.method, attack.path, repr(attack.body)) for attack in ATTACKS}) >= 500
    assert len({attack.kind for attack in (*ATTACKS, *LOCKED)}) >= 15


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_each_is_answered_as_the_table_says(client: TestClient, fortress: Fortress, attack: Attack) -> None:
    fortress.engine.plans.clear()
    answer = ask(client, attack)
    check(answer, attack)
    if attack.is_ignored:
        wait_until(lambda: bool(fortress.engine.plans))
        assert shape(fortress.engine.plans[0]) == fortress.plain(client, attack)


@pytest.mark.parametrize("attack", LOCKED, ids=str)
def test_nothing_is_told_without_the_key(locked: TestClient, attack: Attack) -> None:
    check(ask(locked, attack), attack)


def test_after_all_of_it(client: TestClient, fortress: Fortress) -> None:
    """The server still works, and nothing lies where nothing belongs; no line of the log is a caller's own."""
    assert client.post(CLASSIC, json={"prompt": "x"}).json()[0]["finish_reason"] == "SUCCESS"
    outputs = fortress.root / "outputs"
    homes = (
        outputs / "files" / f"{date.today():%Y-%m-%d}",
        outputs / "resources",
        outputs / "inputs",
        outputs / "sent",
    )
    strangers = [
        path for path in fortress.files() - fortress.before if not any(path.is_relative_to(home) for home in homes)
    ]
    assert not strangers
    assert len(fortress.lines) > 100
    forged = [line for line in fortress.lines if any(unicodedata.category(character) == "Cc" for character in line)]
    assert not forged
