"""The examples of the contract, and sending them with identifiers of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.fooocusapi.surfaces.tams.asking import JOBS, picture_file, uploaded, with_uploads
from tests.fooocusapi.surfaces.tams.matching import mismatch

EXAMPLES: dict[str, Any] = {
    example["name"]: example
    for example in json.loads((Path(__file__).parent / "contract" / "examples.json").read_text(encoding="utf-8"))
}
PAINTED = [name for name, example in EXAMPLES.items() if "final" in example]
"""Bodies whose job is told to its end."""
STATES = ("job_waiting", "job_running", "job_failed", "job_cancel")
APART = (*STATES, "resource_put", "repeat_same_request", "repeat_other_body", "err_no_auth", "err_bad_json")
"""What cannot be sent as it stands: it needs a job, a slot, or a caller of its own."""
AT_ONCE = [name for name, example in EXAMPLES.items() if name not in APART and "final" not in example]

Draw = Callable[[str, int, int], bytes]
"""The file of an upload, by its identifier in the example and its size."""


def asked(client: httpx.Client, example: Any, draw: Draw = lambda _, width, height: picture_file(width, height)) -> Any:
    """The answer to the example's request, with uploads of its own and a key that no other one has."""
    ids = {
        written: uploaded(client, draw(written, *map(int, size.split("x"))))
        for written, size in example.get("uploads", {}).items()
    }
    request = with_uploads(example["request"], ids)
    for key in ("requestId", "request_id"):
        if isinstance(request, dict) and key in request and example["path"] == JOBS:
            request[key] = example["name"]
    return client.request(example["method"] or "POST", example["path"] or JOBS, json=request)


def check_answer(answer: Any, expected: Any) -> None:
    """That an answer is the one of an example; where that tells no details, any will do."""
    assert answer.status_code == expected["status"], answer.text
    wanted, real = expected["body"], answer.json()
    if isinstance(wanted.get("details"), str):
        assert [detail["field"] for detail in real["details"]] == ["requestId", "stages"]
    if ("details" in wanted and not isinstance(wanted["details"], list)) or not wanted.get("details", True):
        wanted = {**wanted, "details": real["details"]}
    assert mismatch(wanted, real) is None, mismatch(wanted, real)
