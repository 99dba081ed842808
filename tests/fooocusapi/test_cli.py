"""The command line: which flags mean what, and what is told of those that mean nothing."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fooocusapi import cli
from fooocusapi.flags import CommandLine, read_flags
from fooocusapi.serve import name_ignored_flags
from fooocusapi.settings import load_settings

CONTRACT_FLAGS = """
--port 1 --host h --base-url http://b --log-level info --skip-pip --preload-pipeline --queue-size 2
--queue-history 3 --webhook-url http://w --persistent --apikey k --sync-repo skip --preset p --listen --output-path o
--temp-path t --cache-path c --gpu-device-id 1 --always-gpu --always-high-vram --always-normal-vram --always-low-vram
--always-no-vram --always-cpu 4 --all-in-fp32 --all-in-fp16 --unet-in-bf16 --unet-in-fp16 --unet-in-fp8-e4m3fn
--unet-in-fp8-e5m2 --vae-in-fp16 --vae-in-fp32 --vae-in-bf16 --vae-in-cpu --clip-in-fp8-e4m3fn --clip-in-fp8-e5m2
--clip-in-fp16 --clip-in-fp32 --directml 0 --attention-split --attention-quad --attention-pytorch --disable-xformers
--disable-offload-from-vram --disable-preset-download --disable-image-log --disable-metadata
--always-download-new-model --rebuild-hash-cache --async-cuda-allocation --pytorch-deterministic --disable-server-log
--disable-server-info --debug-mode --hf-mirror m --theme dark --language en --share --in-browser --disable-in-browser
--disable-analytics
"""


def test_every_flag_of_the_contract_is_known() -> None:
    line = read_flags(CONTRACT_FLAGS.split())
    assert line.unknown == ()
    assert {"--share", "--listen", "--temp-path", "--skip-pip"} <= set(line.without_effect)
    settings = load_settings(line.settings)
    assert (settings.port, settings.queue_size, settings.queue_history, settings.persistent) == (1, 2, 3, True)
    assert (settings.device, settings.cpu_threads, settings.gpu_device_id) == ("cpu", 4, 1)
    assert settings.apikey.get_secret_value() == "k"


def test_nothing_given_is_nothing_set() -> None:
    assert read_flags([]) == CommandLine({}, (), ())


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--webhook_url", "http://w"], {"webhook_url": "http://w"}),
        (["--webhook_url=http://a_b"], {"webhook_url": "http://a_b"}),
        (["--always-cpu"], {"device": "cpu"}),
        (["--always-cpu", "-1"], {"device": "cpu"}),
        (["--all-in-fp16"], {"precision": "fp16", "vae_precision": "fp16"}),
        (["--unet-in-fp16", "--precision", "fp32"], {"precision": "fp32"}),
        (["--always-gpu"], {"vram": "high"}),
        (["--always-high-vram"], {"vram": "high"}),
        (["--always-normal-vram"], {"vram": "normal"}),
        (["--always-low-vram"], {"vram": "low"}),
        (["--always-no-vram"], {"vram": "low"}),
        (["--always-low-vram", "--vram", "high"], {"vram": "high"}),
        (["--bare-base64"], {"bare_base64": True}),
    ],
)
def test_what_flags_mean(arguments: list[str], settings: dict[str, object]) -> None:
    assert read_flags(arguments).settings == settings


def test_unknown_flags_are_named_and_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    line = read_flags(["--turbo", "max", "--port", "1", "--share", "--theme"])
    assert line == CommandLine({"port": "1"}, ("--share", "--theme"), ("--turbo", "max"))
    caplog.set_level(logging.INFO)
    name_ignored_flags(line)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "--share --theme" in caplog.text
    assert "--turbo max" in caplog.text


def test_an_abbreviation_is_not_guessed() -> None:
    assert read_flags(["--por", "1"]).settings == {}


def test_a_bad_value_ends_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--port", "abc"]) == 1
    assert cli.main(["serve", "--queue-size", "0"]) == 1
    told = capsys.readouterr().err
    assert "--port / FOOOCUSAPI_PORT" in told
    assert "--queue-size" in told


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """Puts back what ``configure_logging`` changes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_own_logging")
def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["--port", str(port), "--output-path", str(tmp_path)]) == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_help_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "--queue-history" in told
    assert "demo PROMPT" in told
    assert "--share" not in told


def test_the_demo_needs_a_prompt() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo"])
    assert ended.value.code == 2


def test_nothing_heavy_is_imported_before_the_port_is_open() -> None:
    """A probe expects an answer within a second; each of these takes a good part of it."""
    import subprocess

    script = "import sys, fooocusapi.cli, fooocusapi.serve; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    loaded = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True)
    heavy = {"torch", "numpy", "sqlalchemy", "fastapi", "httpx", "PIL", "diffusers", "transformers", "rich"}
    assert heavy.isdisjoint(loaded.stdout.split())
