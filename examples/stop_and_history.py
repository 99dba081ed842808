"""A job that is stopped, the queue in numbers, and the history: looked at, and cleared of a job and its pictures."""

# ruff: noqa: T201

from __future__ import annotations

import time

from connection import Connection

server = Connection(__doc__)

# Far more work than anybody wants to wait for.
job = server.post(
    "/v1/generation/text-to-image",
    json={
        "prompt": "a castle, 3d render",
        "image_number": 32,
        "async_process": True,
        "advanced_params": {"overwrite_step": 200},
    },
)
while server.get("/v1/generation/query-job", job_id=job["job_id"])["job_stage"] == "WAITING":
    time.sleep(0.1)
numbers = server.get("/v1/generation/job-queue")
print(f"{numbers['running_size']} waiting or running, {numbers['finished_size']} ended")

# Ends the running job within a step; those that wait go on.
print(server.post("/v1/generation/stop")["msg"])
job = server.follow(job)
print(f"{job['job_stage']}: {job['job_status']}")

for entry in server.get("/v1/generation/job-history")["history"]:
    took_s = (entry["finish_mills"] - entry["start_mills"]) / 1000
    print(f"  {entry['job_id']}: {took_s:.1f} s")

print(server.get("/v1/generation/job-history", job_id=job["job_id"], delete=True)["message"])
