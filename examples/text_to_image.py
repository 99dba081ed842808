"""Pictures from a prompt: a call that waits, and one that answers with the picture itself."""

from __future__ import annotations

from connection import Connection, controls

server = Connection(__doc__)

# Everything but the prompt may be left out. The answer is a list with one entry for each picture.
results = server.post(
    "/v1/generation/text-to-image",
    json={
        "prompt": "a red apple, flat icon",
        "negative_prompt": "text",
        "performance_selection": "Speed",
        "aspect_ratios_selection": "512*512",
        "image_number": 2,
        "image_seed": 7,
        "advanced_params": controls(sampler_name="euler", scheduler_name="karras"),
    },
)
server.save(results, "text-to-image")

# With one kind of picture in Accept there is no list: the bytes come at once.
answer = server.client.post(
    "/v1/generation/text-to-image",
    headers={"Accept": "image/png"},
    json={"prompt": "a guitar, cartoon", "aspect_ratios_selection": "512*512", "advanced_params": controls()},
)
server.write("text-to-image-itself.png", answer.raise_for_status().content)
