"""Published clients of TAMS against the server, unmodified, with signed requests. They run only where they are.

``FOOOCUSAPI_CLIENTS`` names a folder that was filled by ``uv pip install --target FOLDER async-tensorart`` and
``npm install --prefix FOLDER tams-sdk``. What is known to be wrong in them:

* async-tensorart 0.2.1 looks for ``job_id`` in the answer to a deletion and for ``queue_rank`` in that of a waiting
  job; the service writes ``jobId`` and ``queueRank``, so both answers fail in the client after the call was done.
  Some of its names of autoencoders are misspelt (``clearvae.safetensor``, ``paster-waifu-diffusion.vae.pt``).
* tams-sdk 1.0.0 always puts ``https://`` before its host; its base URL is set once the object is made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fooocusapi.settings import Settings
from tests.fooocusapi.fakes import FakeClock
from tests.fooocusapi.served import House
from tests.fooocusapi.surfaces.tams.asking import MODEL, SigningKey, blank_engine, picture_file
from tests.fooocusapi.test_socket import Listening, listening

FOLDER = Path(os.environ.get("FOOOCUSAPI_CLIENTS") or "/nowhere")
PATIENCE_S = 60

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="FOOOCUSAPI_CLIENTS names no folder of clients")

PYTHON_CLIENT = """
import asyncio, json, sys
from pathlib import Path
import aiohttp, msgspec
from async_tensorart.client import TensorArt
from async_tensorart.exceptions import TensorArtBadRequestError, TensorArtNotFoundError
from async_tensorart.signature import PrivateKey
from async_tensorart.structs.jobs.post.diffusion_input import DiffusionInput, Prompt
from async_tensorart.structs.jobs.post.enums import VAE, Sampler, StageTypeT
from async_tensorart.structs.jobs.post.job import PostJob
from async_tensorart.structs.jobs.post.stage import CreateJobRequestStage, InputInitializeInput

async def main(url, key, model):
    async with aiohttp.ClientSession() as session:
        client = TensorArt("shop", url + "/v1/", session, PrivateKey(Path(key)))
        stages = [
            CreateJobRequestStage(type=StageTypeT.INPUT_INITIALIZE, input_initialize=InputInitializeInput(count=2)),
            CreateJobRequestStage(type=StageTypeT.DIFFUSION, diffusion=DiffusionInput(
                prompts=[Prompt(text="a ball", weight=1.0)], sd_model=model, sampler=Sampler.EULER_A,
                sd_vae=VAE.AUTOMATIC, steps=20)),
        ]
        job = await client.post_job(PostJob(request_id="python", stages=stages))
        told = {"created": job.status.value}
        while job.status.value not in ("SUCCESS", "FAILED"):
            await asyncio.sleep(0.05)
            job = await client.get_job(job.id)
        told |= {"ended": job.status.value, "pictures": []}
        for image in job.success_info.images:
            async with session.get(image.url) as answer:
                told["pictures"].append([answer.status, answer.headers["Content-Type"]])
        told["model"] = (await client.get_model(int(model))).model_type.value
        try:
            await client.del_job(job.id)
        except msgspec.ValidationError as error:
            told["deletion"] = str(error)
        for name, call in {
            "bad": client.post_job(PostJob(request_id="bad", stages=stages[:1])),
            "missing": client.get_job(1),
        }.items():
            try:
                await call
            except (TensorArtBadRequestError, TensorArtNotFoundError) as error:
                told[name] = type(error).__name__
        print(json.dumps(told))

asyncio.run(main(*sys.argv[1:]))
"""

NODE_CLIENT = """
import { readFileSync } from 'node:fs';
import { TamsSDK, Sha256RsaAuthenticateStrategy } from 'tams-sdk';
const [url, key, model, picture] = process.argv.slice(2);
const log = console.log;
console.log = () => {};
const sdk = new TamsSDK({ appId: 'shop', authenticateStrategy: new Sha256RsaAuthenticateStrategy(readFileSync(key)) });
sdk.api.baseUrl = url;
const told = {};
const { resourceId } = await sdk.uploadFile({ file: readFileSync(picture) });
const stages = [
  { type: 'INPUT_INITIALIZE', inputInitialize: { imageResourceId: resourceId, count: 1 } },
  { type: 'DIFFUSION', diffusion: { width: 512, height: 512, prompts: [{ text: 'a ball' }], sdModel: model,
    sdVae: 'Automatic', sampler: 'Euler a', steps: 20, cfgScale: 7, clipSkip: 2 } },
];
let { job } = (await sdk.v1.tamsApiV1ServiceCreateJob({ requestId: 'node', stages })).data;
told.created = job.status;
while (!['SUCCESS', 'FAILED'].includes(job.status)) {
  await new Promise((done) => setTimeout(done, 50));
  job = (await sdk.v1.tamsApiV1ServiceGetJob(job.id)).data.job;
}
told.ended = job.status;
told.picture = (await fetch(job.successInfo.images[0].url)).status;
told.model = (await sdk.v1.tamsApiV1ServiceGetModel(model)).data.model.modelType;
told.deleted = (await sdk.v1.tamsApiV1ServiceCancelJob(job.id)).data.jobId === job.id;
try {
  await sdk.v1.tamsApiV1ServiceCreateJob({ requestId: 'bad', stages: stages.slice(0, 1) });
} catch (error) {
  told.refused = error.response.error.code;
}
log(JSON.stringify(told));
"""


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey()


@pytest.fixture
def server(tmp_path: Path, key: SigningKey) -> Iterator[Listening]:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "shop.pem").write_text(key.pem(), encoding="ascii")
    (tmp_path / "private.pem").write_text(key.private_pem(), encoding="ascii")
    (tmp_path / "picture.png").write_bytes(picture_file())
    settings = Settings(tams_public_keys=str(keys))
    clock = FakeClock(time.time_ns() // 1_000_000)
    with listening(House(tmp_path, engine=blank_engine(), settings=settings, clock=clock)) as server:
        yield server


def told_by(command: list[str], server: Listening, *others: str, **environment: str) -> Any:
    """What the client has found, as it prints it."""
    root = server.house.root
    url = f"http://127.0.0.1:{server.port}"
    arguments = [*command, url, str(root / "private.pem"), MODEL, *others]
    run = subprocess.run(
        arguments, capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, **environment}, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.skipif(not (FOLDER / "async_tensorart").is_dir(), reason="async-tensorart is not there")
def test_async_tensorart(server: Listening) -> None:
    told = told_by([sys.executable, "-c", PYTHON_CLIENT], server, PYTHONPATH=str(FOLDER))
    assert told == {
        "created": "CREATED",
        "ended": "SUCCESS",
        "pictures": [[200, "image/png"]] * 2,
        "model": "CHECKPOINT",
        "deletion": "Object missing required field `job_id`",
        "bad": "TensorArtBadRequestError",
        "missing": "TensorArtNotFoundError",
    }


@pytest.mark.skipif(not (FOLDER / "node_modules" / "tams-sdk").is_dir(), reason="tams-sdk is not there")
def test_tams_sdk(server: Listening) -> None:
    script = FOLDER / "client.mjs"
    script.write_text(NODE_CLIENT, encoding="utf-8")
    told = told_by(["node", str(script)], server, str(server.house.root / "picture.png"))
    assert told == {
        "created": "CREATED",
        "ended": "SUCCESS",
        "picture": 200,
        "model": "CHECKPOINT",
        "deleted": True,
        "refused": 3,
    }
