"""A job that is followed: asked for without waiting, looked at while it is painted, fetched when it is done."""

# ruff: noqa: T201

from __future__ import annotations

import base64
import sys
import time

from connection import Connection, controls

server = Connection(__doc__)

job = server.post(
    "/v1/generation/text-to-image",
    json={
        "prompt": "a lighthouse, 3d render",
        "aspect_ratios_selection": "512*512",
        "async_process": True,
        "advanced_params": controls(),
    },
)
print(f"job {job['job_id']}")

while job["job_stage"] in ("WAITING", "RUNNING"):
    time.sleep(0.1)
    job = server.get("/v1/generation/query-job", job_id=job["job_id"], require_step_preview=True)
    print(f"{job['job_stage']} {job['job_progress']} % {job['job_status'] or ''}")
    if job["job_step_preview"]:  # A small PNG in base64, of the picture as it stands.
        server.write("async-preview.png", base64.b64decode(job["job_step_preview"]))

if job["job_stage"] == "ERROR":
    sys.exit(f"the job failed: {job['job_status']}")
server.save(job["job_result"], "async")
