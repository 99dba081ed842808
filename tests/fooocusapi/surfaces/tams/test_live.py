"""All examples of the contract against a server as users run it: on a port, all parts joined, with the pocket model.

Only identifiers and keys are replaced. What a pretended engine answers more quickly, ``test_contract`` looks at.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr

from fooocus_core.images.resizing import lanczos
from fooocus_core.plan import Detail, Plan, Stage
from fooocusapi.app import create_app
from fooocusapi.runtime import Runtime
from fooocusapi.services import Services
from fooocusapi.settings import Settings
from fooocusapi.surfaces.tams import resources
from tests.cases import check_all
from tests.fooocusapi.served import pixels_of, wait_until
from tests.fooocusapi.surfaces.tams.asking import (
    FINAL,
    JOBS,
    body,
    painted,
    reserved,
    shown,
    uploaded,
    with_uploads,
)
from tests.fooocusapi.surfaces.tams.drawing import drawn, ended, quick_networks
from tests.fooocusapi.surfaces.tams.examples import AT_ONCE, EXAMPLES, PAINTED, asked, check_answer
from tests.fooocusapi.surfaces.tams.matching import mismatch
from tests.fooocusapi.test_socket import on_a_port

__all__ = ["quick_networks"]

KEY = "secret"
TRIES = 20
NEAR = 4.0
"""Of 255, on the mean: the small network leaves what it would see too small as it was enlarged."""


@dataclass(frozen=True)
class Live:
    """``client`` sends the key with every call, ``bare`` does not."""

    services: Services
    client: httpx.Client
    bare: httpx.Client

    def pictures(self, job: Any) -> list[NDArray[np.uint8]]:
        """By the addresses in the job's answer, as they stand."""
        found = [self.bare.get(image["url"]) for image in job["successInfo"]["images"]]
        assert [answer.headers["content-type"] for answer in found] == ["image/png"] * len(found)
        return [pixels_of(answer.content) for answer in found]

    def plan(self, request_id: str) -> Plan:
        """What ran for a key."""
        jobs = self.services.jobs.history(surface="tams")
        (plan,) = [job.plan for job in jobs if job.context["request_id"] == request_id]
        assert plan is not None
        return plan


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("live")
    settings = Settings(
        tams_keys=SecretStr(KEY),
        tams_models_path=root / "none.json",
        models_root=root / "models",
        output_path=root / "outputs",
        styles_path=root / "styles",
        wildcards_path=root / "words",
        presets_path=root / "presets",
        config_path=root / "config.txt",
    )
    runtime, opened = Runtime(settings), []

    def opening() -> Services:
        opened.append(runtime.open())
        return opened[0]

    with on_a_port(create_app(settings, opening)) as (_, client), httpx.Client(trust_env=False) as bare:
        client.headers["Authorization"] = f"Bearer {KEY}"
        assert client.get("/v1/models/1").status_code == 404  # once it is open
        yield Live(opened[0], client, bare)


def test_answers_at_once(live: Live) -> None:
    check_all(
        {name: EXAMPLES[name] for name in AT_ONCE},
        lambda example: check_answer(asked(live.client, example, drawn), example["answer"]),
    )


@pytest.mark.parametrize("name", PAINTED)
def test_bodies_give_the_stated_pictures(live: Live, name: str) -> None:
    """Their sizes and their number, by the stages in their order."""
    example = EXAMPLES[name]
    answer = asked(live.client, example, drawn)
    check_answer(answer, example["answer"])
    job = ended(live.client, answer.json()["job"]["id"])
    assert mismatch(example["final"], {"job": job}) is None, (mismatch(example["final"], {"job": job}), job)
    sizes = [image["meta"]["image"] for image in job["successInfo"]["images"]]
    made = live.pictures(job)
    assert [picture.shape[:2] for picture in made] == [(size["height"], size["width"]) for size in sizes]
    assert all(not np.array_equal(made[0], other) for other in made[1:])
    stages = example["request"]["stages"][1:]
    assert list(map(kind_of, live.plan(name).stages)) == [stage["type"] for stage in stages]
    if len(stages) > 1:
        check_order(live, example, job, made[0])


def check_order(live: Live, example: Any, job: Any, whole: NDArray[np.uint8]) -> None:
    """That the first stage alone, with the same seed, gives what the second leaves as it is, or enlarges."""
    first_stage = copy.deepcopy(example)
    start, first, _ = first_stage["request"]["stages"]
    seed = job["successInfo"]["imageExifMetaMap"][job["successInfo"]["images"][0]["id"]]["meta"]["Seed"]
    start["inputInitialize"] |= {"seed": seed, "count": 1}
    first_stage |= {"name": f"{example['name']}-alone", "request": {**example["request"], "stages": [start, first]}}
    answer = asked(live.client, first_stage, drawn)
    (small,) = live.pictures(ended(live.client, answer.json()["job"]["id"]))
    height, width = whole.shape[:2]
    assert np.abs(whole.astype(int) - lanczos(small, width, height)).mean() < NEAR


def kind_of(stage: Stage) -> str:
    """The type that a stage of a plan was asked for by."""
    if isinstance(stage, Detail):
        return "IMAGE_TO_ADETAILER"
    if stage.repaint is not None:
        return "IMAGE_TO_INPAINT"
    return "DIFFUSION" if stage.start is None or stage.start.enlarging is None else "IMAGE_TO_UPSCALER"


def test_the_fragment_within_a_stage(live: Live) -> None:
    within = {"type": "IMAGE_TO_INPAINT", **EXAMPLES["inpaint_stage_fragment"]["request"]}
    written = within["imageToInpaint"]["maskImageResourceId"]
    picture, mask = (uploaded(live.client, drawn(name, 512, 768)) for name in ("picture", written))
    request = with_uploads(body("fragment", within, start={"imageResourceId": picture}), {written: mask})
    job = ended(live.client, live.client.post(JOBS, json=request).json()["job"]["id"])
    (made,) = live.pictures(job)
    assert made.shape == (768, 512, 3)
    assert list(map(kind_of, live.plan("fragment").stages)) == ["IMAGE_TO_INPAINT"]


def test_an_upload(live: Live) -> None:
    slot = reserved(live.client)
    check_answer(live.bare.put(slot["putUrl"], content=drawn("picture", 64, 64)), EXAMPLES["resource_put"]["answer"])


def test_a_key_is_good_for_one_body(live: Live) -> None:
    same, other = EXAMPLES["repeat_same_request"], EXAMPLES["repeat_other_body"]
    first = live.client.post(JOBS, json=same["request"]).json()["job"]
    again = live.client.post(JOBS, json=same["request"]).json()["job"]
    assert (again["id"], again["credits"]) == (first["id"], 0.8)
    check_answer(live.client.post(JOBS, json=other["request"]), other["answer"])
    ended(live.client, first["id"])
    live.plan(same["request"]["requestId"])  # of one job


def test_bodies_that_no_client_may_send(live: Live) -> None:
    broken, keyless = EXAMPLES["err_bad_json"], EXAMPLES["err_no_auth"]
    check_answer(live.client.post(JOBS, content=broken["request"]), broken["answer"])
    url = live.client.base_url.join(JOBS)
    check_answer(live.bare.post(url, json=keyless["request"]), keyless["answer"])


def test_states(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job that runs, of one that waits behind it with two others, of those once they are cancelled."""
    long = created(live, body("long", painted(width=1536, height=1344, steps=60), start={"count": 4}))
    waiting = [created(live, priced_08(f"waiting-{number}")) for number in range(3)]
    wait_until(lambda: shown(live.client, long)["status"] == "RUNNING")
    check_state(live, "job_waiting", waiting[0])
    for job_id in (*waiting, long):
        check_answer(live.client.delete(f"{JOBS}/{job_id}"), EXAMPLES["job_cancel"]["answer"])
        assert mismatch(EXAMPLES["job_cancel"]["then"], {"job": shown(live.client, job_id)}) is None
    monkeypatch.setattr(resources, "AWAITED_S", 0.0)
    never_put = reserved(live.client)["resourceId"]
    failing = created(live, body("failing", start={"imageResourceId": never_put}))
    wait_until(lambda: shown(live.client, failing)["status"] in FINAL)
    check_state(live, "job_failed", failing)


def test_a_running_job(live: Live) -> None:
    """As in the example, but for how far it is; at last with a preview."""
    example = EXAMPLES["job_running"]["answer"]["body"]
    for number in range(TRIES):
        job_id = created(live, priced_08(f"running-{number}"))
        while (job := shown(live.client, job_id))["status"] not in FINAL:
            if job["status"] != "RUNNING":
                continue
            (entry,) = job["runningInfo"]["processingImages"]
            image = entry.pop("resourceImage", None)
            assert 0 <= entry["progress"] < 100
            entry["progress"] = 40
            assert mismatch(example, {"job": job}) is None
            if image is not None:
                assert live.bare.get(image["url"]).status_code == 200
                live.client.delete(f"{JOBS}/{job_id}")
                return
    pytest.fail("no job was seen while it was painted")


def created(live: Live, request: Any) -> str:
    answer = live.client.post(JOBS, json=request)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job"]["id"])


def priced_08(request_id: str) -> dict[str, Any]:
    return body(request_id, painted(width=1024, height=1024))


def check_state(live: Live, name: str, job_id: str) -> None:
    check_answer(live.client.get(f"{JOBS}/{job_id}"), EXAMPLES[name]["answer"])
