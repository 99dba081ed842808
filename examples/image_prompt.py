"""Pictures that steer what is painted: by their content, sent as a form, and by their edges, sent as JSON.

Both need a full-size checkpoint and files that go with it. A server without them says which; so does this example.
"""

# ruff: noqa: T201

from __future__ import annotations

import json

from connection import Connection, controls, in_base64, small_picture

server = Connection(__doc__)

# As a form, every slot has fields of its own: cn_img1 to cn_img4.
job = server.post(
    "/v1/generation/image-prompt",
    files={"cn_img1": small_picture()},
    data={
        "prompt": "a glass of wine",
        "cn_type1": "ImagePrompt",
        "cn_stop1": 0.5,
        "cn_weight1": 0.6,
        "async_process": True,
        "advanced_params": json.dumps(controls()),
    },
)
job = server.follow(job)
if job["job_stage"] == "SUCCESS":
    server.save(job["job_result"], "image-prompt")
else:
    print(f"no picture by its content: {job['job_status']}")

# As JSON they are a list. A stop or a weight of 0 is the default of its kind.
job = server.post(
    "/v2/generation/image-prompt",
    json={
        "prompt": "a paper heart on a table",
        "image_prompts": [
            {"cn_img": in_base64(small_picture()), "cn_type": "PyraCanny", "cn_stop": 0, "cn_weight": 0},
        ],
        "async_process": True,
        "advanced_params": controls(),
    },
)
job = server.follow(job)
if job["job_stage"] == "SUCCESS":
    server.save(job["job_result"], "image-prompt-edges")
else:
    print(f"no picture by its edges: {job['job_status']}")
