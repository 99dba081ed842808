"""Parts of a picture painted anew: within a mask, sent as a form, and beyond its sides, sent as JSON."""

from __future__ import annotations

import json

from connection import Connection, controls, in_base64, mask_of_the_middle, small_picture

server = Connection(__doc__)

# White in the mask is repainted, black stays as it is to the last bit.
results = server.post(
    "/v1/generation/image-inpaint-outpaint",
    files={"input_image": small_picture(), "input_mask": mask_of_the_middle()},
    data={
        "prompt": "a green apple, 3d render",
        "inpaint_additional_prompt": "shiny",
        "image_seed": 7,
        "advanced_params": json.dumps(controls(inpaint_strength=1.0)),
    },
)
server.save(results, "inpainted")

# Sides without a distance grow by three tenths of the picture.
results = server.post(
    "/v2/generation/image-inpaint-outpaint",
    json={
        "input_image": in_base64(small_picture()),
        "prompt": "a red heart, 3d render",
        "outpaint_selections": ["Left", "Right"],
        "outpaint_distance_left": 64,
        "outpaint_distance_right": 128,
        "image_seed": 7,
        "advanced_params": controls(),
    },
)
server.save(results, "outpainted")
