"""The real server process over a fake engine: ``python -m tests.fooocusapi.fake_server FOLDER [flags]``.

``FOLDER/runs`` gets a line with the prompt of each plan that the engine begins. A plan whose prompt starts with
``hold`` goes on step by step until ``FOLDER/go`` exists; one that starts with ``fail`` fails.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fooocus_core.events import Cancelled, CancelToken, Event, Failed, Progress, SkipToken, Started
from fooocus_core.plan import Plan
from fooocusapi.flags import read_flags
from fooocusapi.serve import configure_logging, serve
from fooocusapi.settings import load_settings
from tests.fooocusapi.fakes import OneByOne, good_story

STEP_S = 0.01


class HeldEngine(OneByOne):
    """An engine that another process holds back with a file."""

    def __init__(self, folder: Path) -> None:
        self._runs = folder / "runs"
        self._go = folder / "go"

    def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken) -> Iterator[Event]:
        prompt = plan.stages[0].prompts.prompt
        with self._runs.open("a") as runs:
            runs.write(f"{prompt}\n")
        yield Started(1)
        while prompt.startswith("hold") and not self._go.exists():
            if cancel():
                yield Cancelled()
                return
            yield Progress(0.1, "Step 1/10 in the 1-th Sampling")
            time.sleep(STEP_S)
        if prompt.startswith("fail"):
            yield Failed("no room for this picture")
            return
        yield from good_story(plan)


def main(folder: Path, arguments: list[str]) -> int:
    settings = load_settings(read_flags(arguments).settings)
    configure_logging(settings.log_level)
    return serve(settings, announce=lambda _: None, make_engine=lambda *_: HeldEngine(folder))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
