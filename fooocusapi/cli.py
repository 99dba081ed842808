"""The command line: ``main.py [serve] [flags]``, ``demo PROMPT``, ``inspect FILE`` and ``download NAME...``.

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
    if command == "download":
        return _download(rest)
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


def _download(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="main.py download",
        description="Fetch model files into the models' folders. What is there stays; what was cut goes on.",
        epilog="Settings of the server count as well: --preset NAME (the files of a preset), --models-root, "
        "--config-path, --presets-path, --hf-mirror.",
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="a file, or a folder for all of its files")
    parser.add_argument("--list", action="store_true", help="show every published file instead")
    if {"-h", "--help"} & set(arguments):  # Else the help of the settings would be shown.
        parser.print_help()
        return 0
    line = read_flags(arguments)
    given = parser.parse_args(line.unknown)
    preset_name = line.settings.get("preset", "")
    if not (given.name or given.list or preset_name):
        parser.error("name a file, a preset or --list")
    try:
        settings = load_settings(line.settings)
    except BadSettings as error:
        return _refused(f"these settings cannot be used:\n{error}")

    import httpx
    from rich.console import Console

    from fooocus_core.errors import InvalidRequest
    from fooocus_core.presets.config_file import read_config
    from fooocus_core.presets.preset import load_preset
    from fooocusapi.download import Downloader
    from fooocusapi.download_command import UnknownFile, chosen_files, fetch_files, file_lines
    from fooocusapi.settings import config_variables
    from fooocusapi.shelves import catalogue_of, library_of, shelves_of

    config = read_config(settings.config_path, config_variables())
    catalogue, shelves = catalogue_of(settings, config), shelves_of(settings, library_of(settings, config), config)
    console = Console(highlight=False)
    if given.list:
        console.print("\n".join(file_lines(catalogue, shelves)), markup=False, soft_wrap=True)
        return 0
    try:
        preset = load_preset(preset_name, [settings.presets_path], config) if preset_name else None
        files = chosen_files(catalogue, given.name, preset)
        with httpx.Client() as client:
            outcome = fetch_files(files, shelves, Downloader(client, mirror=settings.hf_mirror), console)
    except (InvalidRequest, UnknownFile) as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        return _refused("stopped; the same command goes on from here")
    for file in outcome.present:
        console.print(f"{file.folder}/{file.name} is there", markup=False)
    for failure in outcome.failures:
        _tell(str(failure))
    return 1 if outcome.failures else 0


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
