"""A picture as a starting point: a variation, sent as a form, and an enlargement, sent as JSON."""

from __future__ import annotations

import json

from connection import Connection, controls, in_base64, small_picture

server = Connection(__doc__)

# Under /v1/ a form with the picture as a file. Objects within a form are JSON text.
results = server.post(
    "/v1/generation/image-upscale-vary",
    files={"input_image": small_picture()},
    data={
        "uov_method": "Vary (Subtle)",
        "prompt": "a red heart, 3d render",
        "image_seed": 7,
        "advanced_params": json.dumps(controls()),
    },
)
server.save(results, "varied")

# Under /v2/ JSON with the picture as text. "Upscale (1.5x)" and "(2x)" paint over it, "(Fast 2x)" does not. The result
# has at least the area of 1024 x 1024.
results = server.post(
    "/v2/generation/image-upscale-vary",
    json={"input_image": in_base64(small_picture(128)), "uov_method": "Upscale (Fast 2x)"},
)
server.save(results, "upscaled")

# The address of a picture that this server has made does as well.
results = server.post(
    "/v2/generation/image-upscale-vary",
    json={
        "input_image": results[0]["url"],
        "uov_method": "Vary (Strong)",
        "prompt": "a red heart, 3d render",
        "advanced_params": controls(overwrite_vary_strength=0.7),
    },
)
server.save(results, "varied-again")
