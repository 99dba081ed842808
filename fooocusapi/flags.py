"""The command line of the server: every setting as a flag, and the flags of the programs that it takes over from.

Launch scripts carry flags of the original renderer, of its wrappers, and invented ones. None of them stops the start:
what can be honoured becomes a setting, the rest is named once in the log.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fooocusapi.settings import Settings

RENDERER_FLAGS: Mapping[str, Mapping[str, str]] = {
    "--all-in-fp32": {"precision": "fp32", "vae_precision": "fp32"},
    "--all-in-fp16": {"precision": "fp16", "vae_precision": "fp16"},
    "--unet-in-bf16": {"precision": "bf16"},
    "--unet-in-fp16": {"precision": "fp16"},
    "--vae-in-fp16": {"vae_precision": "fp16"},
    "--vae-in-fp32": {"vae_precision": "fp32"},
    "--vae-in-bf16": {"vae_precision": "bf16"},
    "--always-gpu": {"vram": "high"},
    "--always-high-vram": {"vram": "high"},
    "--always-normal-vram": {"vram": "normal"},
    "--always-low-vram": {"vram": "low"},
    "--always-no-vram": {"vram": "low"},
}
"""Flags of the original renderer that stand for settings of ours; of several for one setting the last here counts."""

WITHOUT_EFFECT = (
    "--skip-pip",
    "--preload-pipeline",
    "--unet-in-fp8-e4m3fn",
    "--unet-in-fp8-e5m2",
    "--vae-in-cpu",
    "--clip-in-fp8-e4m3fn",
    "--clip-in-fp8-e5m2",
    "--clip-in-fp16",
    "--clip-in-fp32",
    "--attention-split",
    "--attention-quad",
    "--attention-pytorch",
    "--disable-xformers",
    "--disable-offload-from-vram",
    "--disable-preset-download",
    "--disable-image-log",
    "--disable-metadata",
    "--always-download-new-model",
    "--rebuild-hash-cache",
    "--async-cuda-allocation",
    "--pytorch-deterministic",
    "--disable-server-log",
    "--disable-server-info",
    "--debug-mode",
    "--share",
    "--in-browser",
    "--disable-in-browser",
    "--disable-analytics",
)
"""Accepted and named in the log: nothing here corresponds to them."""

WITHOUT_EFFECT_VALUED = (
    "--sync-repo",
    "--listen",
    "--temp-path",
    "--cache-path",
    "--directml",
    "--theme",
    "--language",
)
"""The same, with a value that may be left out."""


@dataclass(frozen=True)
class CommandLine:
    """What was asked on the command line."""

    settings: Mapping[str, Any]
    """By the names of the fields of ``Settings``; only what was given."""
    without_effect: tuple[str, ...]
    unknown: tuple[str, ...]


def read_flags(arguments: Sequence[str]) -> CommandLine:
    """The command line in its parts. Ends the process with the help text when that is asked for, and never else."""
    given, unknown = _parser().parse_known_args([_with_dashes(argument) for argument in arguments])
    values = vars(given)
    settings = {name: value for name, value in values.items() if name in Settings.model_fields}
    renderer: dict[str, Any] = {}
    for flag, meaning in RENDERER_FLAGS.items():
        if flag in values:
            renderer |= meaning
    renderer |= _cpu(values)
    ignored = tuple(flag for flag in (*WITHOUT_EFFECT, *WITHOUT_EFFECT_VALUED) if flag in values)
    return CommandLine(renderer | settings, ignored, tuple(unknown))


def _cpu(values: Mapping[str, Any]) -> dict[str, Any]:
    """``--always-cpu [threads]``; other values than a number have always been taken for none."""
    if "--always-cpu" not in values:
        return {}
    threads = str(values["--always-cpu"] or "")
    return {"device": "cpu"} | ({"cpu_threads": threads} if threads.isdecimal() else {})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Serve the Fooocus pipeline over HTTP.",
        epilog="Commands: serve (the same as none), demo PROMPT (make one picture and end), "
        "inspect FILE (print what made a picture), download NAME... (fetch model files). "
        "Every setting is a variable as well: --queue-size is FOOOCUSAPI_QUEUE_SIZE.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        help_text = (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, dest=name, action="store_const", const=True, help=help_text)
        else:
            parser.add_argument(flag, dest=name, metavar="VALUE", help=help_text)
    for flag in (*RENDERER_FLAGS, *WITHOUT_EFFECT):
        parser.add_argument(flag, dest=flag, action="store_const", const=True, help=argparse.SUPPRESS)
    for flag in ("--always-cpu", *WITHOUT_EFFECT_VALUED):
        parser.add_argument(flag, dest=flag, nargs="?", help=argparse.SUPPRESS)
    return parser


def _with_dashes(argument: str) -> str:
    """``--webhook_url=x`` as ``--webhook-url=x``: the original guide writes both."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value
