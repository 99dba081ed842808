"""Bodies that nobody would write: whatever comes, the answer is one of this dialect's, and never a bug."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from fooocusapi.surfaces.tams.failures import CODE_OF
from fooocusapi.surfaces.tams.messages import Message, _message_in
from fooocusapi.surfaces.tams.schemas import JobRequest, ResourceRequest
from tests.fooocusapi.surfaces.tams.asking import JOBS, body

ODD: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["", "-1", "2.0", "1e3", "\u0661", "\ud800", "null", "DIFFUSION", "Latent", "../x", "0" * 40]),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
LIKELY: Any = st.sampled_from(
    [0, 1, 2, 512, "512", 0.5, 1024, "Euler a", "Latent", "4x-UltraSharp", "600423083519508503"]
)


def messages(kind: type[Message]) -> Any:
    """Objects with some of a message's fields, in either spelling, most of them of the right shape."""
    fields = {}
    for name, field in kind.model_fields.items():
        inner = _message_in(field.annotation)
        is_list = "list[" in str(field.annotation)
        value = st.one_of(LIKELY, ODD) if inner is None else messages(inner)
        fields[name] = st.one_of(st.lists(value, max_size=2) if is_list else value, ODD)
    spelt = {spelling: value for name, value in fields.items() for spelling in (name, to_camel(name))}
    return st.fixed_dictionaries({}, optional=spelt)


STAGE_TYPES = ["INPUT_INITIALIZE", "DIFFUSION", "IMAGE_TO_UPSCALER", "IMAGE_TO_ADETAILER", "IMAGE_TO_INPAINT"]
VALID = body()


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """A valid job in which a few values have been replaced."""
    job = json.loads(json.dumps(VALID))
    for _ in range(draw(st.integers(1, 3))):
        stage = draw(st.sampled_from(job["stages"]))
        block = stage.get("diffusion") or stage.get("inputInitialize")
        block[draw(st.sampled_from([*block, "seed", "count", "sdVae", "lora", "scheduleName"]))] = draw(
            st.one_of(LIKELY, ODD)
        )
    return job


def check(answer: Any) -> None:
    told = answer.json()
    if answer.status_code == 200:
        assert "code" not in told
        return
    assert answer.status_code in (400, 409, 429, 501), answer.text
    assert told["code"] == CODE_OF[answer.status_code]
    assert told["message"]
    assert all(detail["field"] and detail["message"] for detail in told["details"])


def sent(client: TestClient, path: str, value: Any) -> Any:
    # ASCII, so that half a surrogate pair can be sent at all.
    return client.post(path, content=json.dumps(value, ensure_ascii=True))


@settings(max_examples=30)
@given(messages(JobRequest))
def test_any_stages_have_a_price_or_a_reason(shared_client: TestClient, value: Any) -> None:
    check(sent(shared_client, f"{JOBS}/credits", value))


@settings(max_examples=30)
@given(changed())
def test_jobs_with_odd_values(shared_client: TestClient, value: Any) -> None:
    check(sent(shared_client, f"{JOBS}/credits", value))


@settings(max_examples=30)
@given(messages(ResourceRequest))
def test_slots(shared_client: TestClient, value: Any) -> None:
    check(sent(shared_client, "/v1/resource/image", value))
