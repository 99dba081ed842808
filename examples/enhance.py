"""What stands out in a picture painted anew: the last step alone as a form, every step of the way as JSON."""

from __future__ import annotations

import json

from connection import Connection, controls, in_base64, small_picture

server = Connection(__doc__)

# What u2netp takes for the subject is repainted; sam would look for what enhance_mask_dino_prompt_1 names.
results = server.post(
    "/v1/generation/image-enhance",
    files={"enhance_input_image": small_picture()},
    data={
        "enhance_uov_method": "Disabled",
        "enhance_enabled_1": True,
        "enhance_mask_model_1": "u2netp",
        "enhance_prompt_1": "a green heart, 3d render",
        "image_seed": 7,
        "advanced_params": json.dumps(controls()),
    },
)
server.save(results, "enhanced")

# First the subject, then all around it.
subject = {"enhance_enabled": True, "enhance_mask_model": "u2netp", "enhance_prompt": "a blue heart, 3d render"}
around = {**subject, "enhance_mask_invert": True, "enhance_prompt": "a wooden table"}
task = server.post(
    "/v1/engine/generate",
    json={
        "enhance_input_image": in_base64(small_picture()),
        "enhance_checkbox": True,
        "enhance_ctrls": [subject, around],
        "image_seed": 7,
        **controls(),
    },
)
for step, url in enumerate(task["result"]):
    server.write(f"enhanced-step-{step}.png", server.client.get(url).content)
