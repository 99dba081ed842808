"""The examples of the contract, each sent as it stands but for identifiers, and answered as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from fooocus_core.events import Failed, Progress
from fooocusapi.settings import Settings
from tests.cases import check_all
from tests.fooocusapi.served import HeldEngine, House, serving, wait_until
from tests.fooocusapi.surfaces.tams.asking import (
    JOBS,
    blank_engine,
    body,
    ended,
    painted,
    path_of,
    picture_file,
    reserved,
    shown,
    uploaded,
    with_uploads,
)
from tests.fooocusapi.surfaces.tams.examples import APART, AT_ONCE, EXAMPLES, PAINTED, asked, check_answer
from tests.fooocusapi.surfaces.tams.matching import mismatch


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("contract"), engine=blank_engine())


@pytest.fixture(scope="module")
def client(house: House) -> Any:
    with serving(house) as client:
        yield client


def test_none_is_left_out() -> None:
    assert len(EXAMPLES) == 35
    assert {*APART, *AT_ONCE, *PAINTED} == set(EXAMPLES)


def test_answers_at_once(client: TestClient) -> None:
    check_all(
        {name: EXAMPLES[name] for name in AT_ONCE},
        lambda example: check_answer(asked(client, example), example["answer"]),
    )


@pytest.mark.parametrize("name", PAINTED)
def test_jobs_end_as_they_should(client: TestClient, house: House, name: str) -> None:
    example = EXAMPLES[name]
    answer = asked(client, example)
    check_answer(answer, example["answer"])
    job = ended(client, answer.json()["job"]["id"])
    expected = example["final"]
    if name in ("inpaint_direct", "adetailer_direct"):
        # The pretended engine paints at the stage's size; that the picture's own is kept, test_painting looks at.
        plan = house.engine.plans[-1]
        assert plan.stages[-1].kind in ("diffuse", "detail")
        expected = json.loads(json.dumps(expected).replace("1536x2304", "512x768"))
        for image in expected["job"]["successInfo"]["images"]:
            image["meta"]["image"].update(width=512, height=768 if name == "inpaint_direct" else 512)
    assert mismatch(expected, {"job": job}) is None, mismatch(expected, {"job": job})
    seeds = [int(notes["meta"]["Seed"]) for notes in job["successInfo"]["imageExifMetaMap"].values()]
    assert [seed - seeds[0] for seed in seeds] == list(range(len(seeds)))
    for image in job["successInfo"]["images"]:
        picture = client.get(path_of(image["url"]))
        assert picture.status_code == 200
        assert picture.headers["content-type"] == "image/png"


def test_the_fragment_within_a_stage_is_the_whole_body(client: TestClient, house: House) -> None:
    """One of them has a bracket in one entry, the other in two; both mean the same prompt."""
    picture = uploaded(client)
    within = {"type": "IMAGE_TO_INPAINT", **EXAMPLES["inpaint_stage_fragment"]["request"]}
    written = within["imageToInpaint"]["maskImageResourceId"]
    request = with_uploads(body("fragment", within, start={"imageResourceId": picture}), {written: picture})
    assert ended(client, client.post(JOBS, json=request).json()["job"]["id"])["status"] == "SUCCESS"
    fragment = house.engine.plans[-1].main
    whole = next(plan.main for plan in house.engine.plans if plan.main.repaint is not None)
    assert fragment.prompts == whole.prompts
    assert fragment.sampling == whole.sampling


def test_an_upload_needs_no_more_than_its_address(client: TestClient) -> None:
    example = EXAMPLES["resource_put"]
    for kind in ("PNG", "JPEG", "WEBP"):
        slot = reserved(client)
        headers = {"content-type": "text/plain"}
        answer = client.put(path_of(slot["putUrl"]), content=picture_file(64, 64, kind), headers=headers)
        check_answer(answer, example["answer"])


def test_a_key_is_good_for_one_body(client: TestClient, house: House) -> None:
    same, other = EXAMPLES["repeat_same_request"], EXAMPLES["repeat_other_body"]
    first = client.post(JOBS, json=same["request"]).json()["job"]
    ended(client, first["id"])
    painted_before = len(house.engine.plans)
    again = client.post(JOBS, json=same["request"]).json()["job"]
    assert (again["id"], again["status"], again["credits"]) == (first["id"], "SUCCESS", 0.8)
    check_answer(client.post(JOBS, json=other["request"]), other["answer"])
    assert len(house.engine.plans) == painted_before


def test_a_body_with_comments_is_no_json(client: TestClient) -> None:
    example = EXAMPLES["err_bad_json"]
    check_answer(client.post(JOBS, content=example["request"]), example["answer"])


def test_states_while_a_job_waits_runs_and_ends(tmp_path: Path) -> None:
    engine = HeldEngine()
    with serving(House(tmp_path, engine=engine)) as client:
        ids = [client.post(JOBS, json=priced_08(str(number))).json()["job"]["id"] for number in range(4)]
        engine.begin()
        check_state(client, "job_waiting", ids[1])
        engine.play(Progress(0.4, "Step 8/20"))
        check_state(client, "job_running", ids[0])
        engine.play(Failed("a file is broken"))
        engine.begin()  # The end of the one before is written down beside it.
        wait_until(lambda: shown(client, ids[0])["status"] != "RUNNING")
        check_state(client, "job_failed", ids[0])
        for job_id in (ids[2], ids[1]):
            example = EXAMPLES["job_cancel"]
            check_answer(client.delete(f"{JOBS}/{job_id}"), example["answer"])
            assert mismatch(example["then"], {"job": shown(client, job_id)}) is None


def check_state(client: TestClient, name: str, job_id: str) -> None:
    check_answer(client.get(f"{JOBS}/{job_id}"), EXAMPLES[name]["answer"])


def priced_08(request_id: str) -> dict[str, Any]:
    return body(request_id, painted(width=1024, height=1024))


def test_without_the_key_nothing_is_done(tmp_path: Path) -> None:
    house = House(tmp_path, settings=Settings(tams_keys=SecretStr("secret")))
    example = EXAMPLES["err_no_auth"]
    with serving(house) as client:
        check_answer(client.post(JOBS, json=example["request"]), example["answer"])
        assert house.jobs.counters().unfinished == 0
