"""Requests made of the published document: no answer is a fault of the server, and each is one that the document tells.

A few of each kind in the suite; ``FOOOCUSAPI_FUZZ_EXAMPLES=200 pytest tests/attacks/test_document.py`` makes so many of
each. They are the same in every run unless that is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fooocusapi.app import create_app
from fooocusapi.settings import Settings
from tests.fooocusapi.served import House, serving

NOT_OFFERED = 501
"""What the contract of staged jobs has servers answer to stages that they do not know; no fault of theirs."""
EXAMPLES = int(os.environ.get("FOOOCUSAPI_FUZZ_EXAMPLES", "0"))
EXAMPLES_IN_THE_SUITE = 8
HELD = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
]


def _document() -> dict[str, Any]:
    """As the server publishes it, which needs no service."""
    document: dict[str, Any] = create_app(Settings(), lambda: pytest.fail("nothing is opened")).openapi()
    return document


SCHEMA = schemathesis.openapi.from_dict(_document())
OPERATIONS = {f"{found.ok().method.upper()} {found.ok().path}": found.ok() for found in SCHEMA.get_all_operations()}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(House(tmp_path_factory.mktemp("fuzzed"))) as client:
        yield client


@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_those_of_the_document(client: TestClient, name: str) -> None:
    @settings(
        max_examples=EXAMPLES or EXAMPLES_IN_THE_SUITE,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def hold(data: st.DataObject) -> None:
        case = data.draw(OPERATIONS[name].as_strategy())
        sent = requests.Request(**case.as_transport_kwargs(base_url="http://testserver")).prepare()
        headers = {name.lower(): value for name, value in sent.headers.items()}
        answer = client.request(str(sent.method), str(sent.url), content=sent.body, headers=headers)
        if answer.status_code == NOT_OFFERED:
            return
        # The document describes a stream as the text that it is, the check wants a schema of single events.
        is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        case.validate_response(answer, checks=[*HELD, *([] if is_stream else [response_schema_conformance])])

    hold()


def test_the_document_tells_of_all_dialects() -> None:
    assert len(OPERATIONS) > 30
