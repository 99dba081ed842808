"""The engine without a server around it: made as the worker makes it, it runs the plans that are handed to it.

``benchmarks/service.py`` runs this as a process of its own beside the server's. One plan a line comes in as JSON, one
line goes out: the seconds of the engine's run, and those of packing and writing its pictures, which come after it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.server_process import Case, server_flags
from fooocus_core.events import Finished, ImageFinished, never
from fooocus_core.plan import Plan
from fooocus_core.presets.config_file import read_config
from fooocus_core.presets.preset import choose_default_preset
from fooocusapi.engine_maker import make_core_engine
from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.worker import Engine
from fooocusapi.serve import let_threads_rest
from fooocusapi.settings import load_settings
from fooocusapi.shelves import library_of


def run(engine: Engine, store: OutputStore, plan: Plan) -> dict[str, float]:
    """One run, and what saving its pictures takes. Raises ``SystemExit`` for a plan that does not come to its end."""
    started_s = time.perf_counter()
    events = list(engine.run(plan, never, never))
    ended_s = time.perf_counter()
    if not isinstance(events[-1], Finished):
        raise SystemExit(f"the engine made no picture: {events[-1]}")
    job = Job(id="bare", surface="", job_type="", plan=plan, context={}, queued_ms=0)
    for event in events:
        if isinstance(event, ImageFinished):
            store.save(job, event)
    return {"engine_s": ended_s - started_s, "saving_s": time.perf_counter() - ended_s}


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a server's own, which is not written to")
    parser.add_argument("--outputs", type=Path, required=True, help="where the pictures go")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    case = Case(given.checkpoint, steps=0, runs=0, device=given.device)
    settings = load_settings({**server_flags(case, given.folder), "output_path": given.outputs})
    let_threads_rest(os.environ)
    config = read_config(settings.config_path)
    library = library_of(settings, config)
    preset = choose_default_preset(library.checkpoint_names(), [settings.presets_path], config)
    engine = make_core_engine(settings, library, preset)
    store = OutputStore(settings.output_path, settings.public_url)
    for line in sys.stdin:
        print(json.dumps(run(engine, store, Plan.from_json(json.loads(line)))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
