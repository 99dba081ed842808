"""The pocket model behind this dialect: events while it paints, and pictures that follow what was sent."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.fooocus_core.stages.test_start import scene
from tests.fooocusapi.served import pixels_of
from tests.fooocusapi.surfaces.unified.asking import GENERATE, png

QUICK = {
    "prompt": "a red ball",
    "style_selections": [],
    "image_seed": 7,
    "overwrite_step": 4,
    "sampler_name": "euler",
    "aspect_ratios_selection": "256*256",
}


def events_of(answer: Any) -> list[Any]:
    return [json.loads(line[6:]) for line in answer.text.split("\r\n") if line.startswith("data: {")]


def test_a_stream_tells_of_the_picture_while_it_is_painted(painting: TestClient) -> None:
    *running, last = events_of(painting.post(GENERATE, json={**QUICK, "stream_output": True}))
    assert [event["images"] for event in running] == [[]] * len(running)
    shares = [event["progress"] for event in running]
    assert shares == sorted(shares)
    assert shares[-1] < last["progress"] == 100
    (url,) = last["images"]
    stored = painting.get(url.removeprefix("http://127.0.0.1:8888")).content
    assert pixels_of(stored).shape == (256, 256, 3)
    with Image.open(io.BytesIO(stored)) as picture:
        assert json.loads(picture.info["parameters"])["prompt"] == "a red ball"


def test_previews_are_shown_unless_they_are_not_wanted(painting: TestClient) -> None:
    slow = {**QUICK, "overwrite_step": 20, "stream_output": True}
    previews = [event["preview"] for event in events_of(painting.post(GENERATE, json=slow)) if event["preview"]]
    assert previews
    shown = pixels_of(base64.b64decode(previews[-1].removeprefix("data:image/png;base64,")))
    assert shown.shape == (64, 64, 3)
    events = events_of(painting.post(GENERATE, json={**slow, "overwrite_step": 4, "disable_preview": True}))
    assert not [event for event in events if event["preview"]]


@pytest.mark.parametrize("distance", [[16, 0, 0, 0], [0, 0, 0, 0]])
def test_a_picture_grows_by_what_was_asked_for(painting: TestClient, distance: list[int]) -> None:
    sent = {"inpaint_input_image": png(scene(160)), "outpaint_selections": "Left", "outpaint_distance": distance}
    answer = painting.post(GENERATE, json={**QUICK, **sent}, headers={"accept": "image/png"})
    assert answer.status_code == 200
    grown = pixels_of(answer.content)
    added = distance[0] or 48
    assert grown.shape == (160, 160 + added, 3)
    assert np.array_equal(grown[:, added + 40 :], scene(160)[:, 40:])
