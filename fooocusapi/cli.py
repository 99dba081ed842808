"""The command line: ``main.py [serve] [flags]``, ``main.py demo PROMPT`` and ``main.py inspect FILE``.

What people read here is printed with rich; everything else is logged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fooocusapi.flags import read_flags
from fooocusapi.settings import BadSettings, Settings, load_settings, without_server_settings


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("serve", [])
    if command == "demo":
        return _demo(rest)
    if command == "inspect":
        return _inspect(rest)
    return _serve(rest if command == "serve" else arguments)


def _serve(arguments: Sequence[str]) -> int:
    line = read_flags(arguments)
    try:
        settings = load_settings(line.settings)
    except BadSettings as error:
        return _refused(f"these settings cannot be used:\n{error}")
    # Imported here: a wrong setting is told without them, and the demo never needs them.
    from fooocusapi.serve import PortTaken, configure_logging, name_ignored_flags, serve

    configure_logging(settings.log_level)
    name_ignored_flags(line)
    try:
        return serve(settings, announce=_announce)
    except PortTaken as error:
        return _refused(str(error))


def _demo(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="main.py demo", description="Start a server, make one picture, end it.")
    parser.add_argument("prompt", help="what the picture shows")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to save it; default: named after the prompt")
    given = parser.parse_args(arguments)

    from rich.console import Console

    from fooocusapi.demo import DemoFailed, run_demo

    console = Console()
    try:
        run_demo(given.prompt, given.output, console, without_server_settings(os.environ))
    except DemoFailed as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        return _refused("stopped")
    return 0


def _inspect(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="main.py inspect", description="Print what made a picture, as the body of a text-to-image request."
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a PNG, JPEG or WebP picture of this program or Fooocus"
    )
    given, flags = parser.parse_known_args(arguments)
    try:
        settings = load_settings(read_flags(flags).settings)
    except BadSettings as error:
        return _refused(f"these settings cannot be used:\n{error}")

    from fooocusapi.inspection import InspectionFailed, inspect_picture

    try:
        found = inspect_picture(given.file, settings.styles_path)
    except InspectionFailed as error:
        return _refused(str(error))
    # To a program as much as to a reader, so unadorned, and in ASCII whatever the terminal takes.
    sys.stdout.write(json.dumps(found.body, indent=2) + "\n")
    if found.unread:
        _tell(f"left out, not understood: {', '.join(found.unread)}")
    return 0


def _announce(settings: Settings) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"[bold]fooocusapi[/] serves on [link={settings.public_url}]{settings.public_url}[/]")
    console.print(f"every endpoint and field: [link={settings.public_url}/docs]{settings.public_url}/docs[/]")


def _refused(reason: str) -> int:
    _tell(reason)
    return 1


def _tell(reason: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(reason, style="red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
