"""What the published document says of the answers of this dialect, beside their schemas."""

from __future__ import annotations

from fooocusapi.surfaces.published import Responses

GENERATED: Responses = {
    200: {
        "description": "An array of pictures; with `async_process` a job object; with `Accept: image/png` the first "
        "picture itself.",
        "content": {
            "application/json": {
                "examples": {
                    "pictures": {
                        "summary": "The answer to a call that waits",
                        "value": [
                            {
                                "base64": None,
                                "url": "http://127.0.0.1:8888/files/2025-02-23/abc-0.png",
                                "seed": "6023511366105519179",
                                "finish_reason": "SUCCESS",
                            }
                        ],
                    },
                    "job": {
                        "summary": "The answer with async_process",
                        "value": {
                            "job_id": "764af3ec-f0f7-45c6-9951-722e24c67134",
                            "job_type": "Text to Image",
                            "job_stage": "WAITING",
                            "job_progress": 0,
                            "job_status": None,
                            "job_step_preview": None,
                            "job_result": None,
                        },
                    },
                }
            },
            "image/png": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    400: {"description": "Only with `Accept: image/png`: the job was stopped (`USER_CANCEL`)."},
    409: {"description": "Only with `Accept: image/png`: the queue is full (`QUEUE_IS_FULL`)."},
    500: {"description": "Only with `Accept: image/png`: the job failed (`ERROR`)."},
}
