"""Text to image with pictures that steer it; without a usable picture it paints from the text alone."""

# ruff: noqa: T201

from __future__ import annotations

from connection import Connection, controls, in_base64, small_picture

server = Connection(__doc__)
request = {
    "prompt": "a red apple, flat icon",
    "aspect_ratios_selection": "512*512",
    "async_process": True,
    "advanced_params": controls(),
}

# What documentation pages send where there is no picture counts as none.
job = server.follow(
    server.post("/v2/generation/text-to-image-with-ip", json={**request, "image_prompts": [{"cn_img": "None"}]})
)
server.save(job["job_result"], "without-a-picture")

job = server.follow(
    server.post(
        "/v2/generation/text-to-image-with-ip",
        json={
            **request,
            "image_prompts": [
                {"cn_img": in_base64(small_picture()), "cn_type": "ImagePrompt", "cn_stop": 0.5, "cn_weight": 0.6},
                {"cn_img": in_base64(small_picture()), "cn_type": "FaceSwap"},
            ],
        },
    )
)
if job["job_stage"] == "SUCCESS":
    server.save(job["job_result"], "with-a-picture")
else:  # A full-size checkpoint is needed, and files that go with it.
    print(f"no picture: {job['job_status']}")
