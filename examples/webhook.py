"""The end of a job told to a receiver of one's own, instead of asking for it again and again.

The receiver is on this machine, which requests may name only where the server was started with `--webhook-private`.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from connection import Connection, controls

told: queue.Queue[dict[str, Any]] = queue.Queue()


class Receiver(BaseHTTPRequestHandler):
    """Answers at once and works later."""

    def do_POST(self) -> None:
        told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


server = Connection(__doc__)
receiver = HTTPServer(("127.0.0.1", 0), Receiver)  # The server must be able to reach it; here both are one machine.
threading.Thread(target=receiver.serve_forever, daemon=True).start()

job = server.post(
    "/v1/generation/text-to-image",
    json={
        "prompt": "a yellow duck, cartoon",
        "aspect_ratios_selection": "512*512",
        "async_process": True,
        "webhook_url": f"http://127.0.0.1:{receiver.server_port}/ended",
        "advanced_params": controls(),
    },
)

try:
    news = told.get(timeout=120)
except queue.Empty:
    sys.exit("nothing was told; was the server started with --webhook-private?")
receiver.shutdown()
print(f"told of job {news['job_id']}")
if news["job_id"] != job["job_id"] or not news["job_result"]:  # Empty after a failure; query-job has the reason.
    sys.exit("that is not what was asked for")
for number, picture in enumerate(news["job_result"]):
    server.write(f"webhook-{number}.png", server.client.get(picture["url"]).raise_for_status().content)
