"""What all examples share: where the server is, where pictures go, and how both are told on the command line.

    python examples/text_to_image.py --server http://127.0.0.1:8888 --output pictures

The address can also stand in FOOOCUSAPI_SERVER, a key in FOOOCUSAPI_APIKEY. FOOOCUSAPI_EXAMPLE_STEPS makes every
example quick and its pictures rough.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

_DEMO_PICTURE = Path(__file__).resolve().parent.parent / "docs" / "demo.png"


class Connection:
    """A server and a folder for its pictures."""

    def __init__(self, description: str) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--server", default=os.environ.get("FOOOCUSAPI_SERVER", "http://127.0.0.1:8888"))
        parser.add_argument("--output", type=Path, default=Path("pictures"))
        asked = parser.parse_args()
        key = os.environ.get("FOOOCUSAPI_APIKEY", "")
        self.folder: Path = asked.output
        self.folder.mkdir(parents=True, exist_ok=True)
        # A call that waits answers when the picture is there, however long that takes. Proxies would not wait.
        self.client = httpx.Client(
            base_url=asked.server, headers={"X-API-KEY": key} if key else {}, timeout=None, trust_env=False
        )

    def post(self, path: str, **request: Any) -> Any:
        """The answer; a field that the server refuses ends the example with its words."""
        return self._checked(self.client.post(path, **request))

    def get(self, path: str, **query: Any) -> Any:
        """The answer."""
        return self._checked(self.client.get(path, params=query))

    def save(self, results: list[dict[str, Any]], name: str) -> list[Path]:
        """Fetches the pictures of an answer and writes them as ``name-0.png`` and so on."""
        paths = []
        for index, result in enumerate(results):
            if result["url"] is None:
                sys.exit(f"no picture: {result['finish_reason']}")
            paths.append(self.write(f"{name}-{index}.png", self.client.get(result["url"]).raise_for_status().content))
            print(f"  seed {result['seed']}")
        return paths

    def write(self, name: str, data: bytes) -> Path:
        """Writes a picture and says so."""
        path = self.folder / name
        path.write_bytes(data)
        print(f"{path}: {' x '.join(map(str, Image.open(path).size))}")
        return path

    def follow(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job once it has ended."""
        while job["job_stage"] in ("WAITING", "RUNNING"):
            time.sleep(0.2)
            job = self.get("/v1/generation/query-job", job_id=job["job_id"])
        return job

    def _checked(self, answer: httpx.Response) -> Any:
        if answer.status_code != 200:
            sys.exit(f"the server answered {answer.status_code}: {answer.text}")
        return answer.json()


def controls(**finer: Any) -> dict[str, Any]:
    """The finer controls of a request, with fewer steps if that was asked for."""
    steps = os.environ.get("FOOOCUSAPI_EXAMPLE_STEPS")
    return {**finer, "overwrite_step": int(steps)} if steps else finer


def small_picture(side_px: int = 256) -> bytes:
    """A PNG to start from: the heart of the README, small so that nobody waits long."""
    return _png_of(Image.open(_DEMO_PICTURE).resize((side_px, side_px)))


def mask_of_the_middle(side_px: int = 256) -> bytes:
    """A mask for it: the middle in white, to be repainted, and all else black."""
    mask = Image.new("L", (side_px, side_px))
    ImageDraw.Draw(mask).ellipse((side_px // 4, side_px // 4, side_px * 3 // 4, side_px * 3 // 4), fill=255)
    return _png_of(mask)


def in_base64(picture: bytes) -> str:
    """A picture as JSON carries it. ``data:image/png;base64,`` in front is understood too, and so are addresses."""
    return base64.b64encode(picture).decode()


def _png_of(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
