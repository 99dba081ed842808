"""Every setting of the server in one record, read once at the start. Nothing else looks at the environment.

Flags stand above variables, variables above the defaults. Each field is the variable ``FOOOCUSAPI_<NAME>``; the names
that older set-ups carry, ``API_PORT``, ``FOOOCUS_DB_CONF`` and ``HF_MIRROR``, are known as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fooocus_core.plan import PNG_LEVEL, ImagePromptWeighting
from fooocus_core.presets.config_file import CONFIG_KEYS
from fooocus_core.presets.sizes import SizeLimits
from fooocus_core.resolve import MAX_PROMPT_CHARACTERS
from fooocusapi.jobs.signatures import secret_bytes

PREFIX = "FOOOCUSAPI_"

LogLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
Vram = Literal["low", "normal", "high"]
Compile = Literal["auto", "always", "never"]

TaskWebhook = Literal["string", "object"]

WEB = ("http://", "https://")
ANY_HOST = ("0.0.0.0", "::")


class BadSettings(Exception):
    """Settings that cannot be used; the text names each one and what is wrong with it, never a value."""


def _variable(name: str, older: str) -> AliasChoices:
    return AliasChoices(f"{PREFIX}{name.upper()}", older, name)


class Settings(BaseSettings):
    """How one server runs. Paths are relative to the working folder."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(
        8888, ge=0, le=65535, validation_alias=_variable("port", "API_PORT"), description="port, never + 1"
    )
    base_url: str = Field("", description="prefix of the links to pictures; empty: http://<host>:<port>")
    log_level: LogLevel = "info"

    queue_size: int = Field(100, ge=1, description="waiting plus running jobs beyond which a request is refused")
    queue_history: int = Field(0, ge=0, description="finished jobs kept, pictures included; 0 keeps all")
    webhook_url: str = Field("", repr=False, description="told of every ended job whose request names no other")
    webhook_secret: SecretStr = Field(
        SecretStr(""), description="what webhooks are signed with, whsec_ and base64; empty: they are not"
    )
    webhook_private: bool = Field(
        False, description="post to addresses of requests in loopback, private and other closed networks as well"
    )
    task_webhook: TaskWebhook = Field(
        "string", description="how a task's record is posted: as JSON text in a JSON string, or as an object"
    )
    persistent: bool = Field(False, description="answer job-history from the database")
    database_url: str = Field(
        "",
        repr=False,
        validation_alias=_variable("database_url", "FOOOCUS_DB_CONF"),
        description="the journal's database; empty: journal.db in the outputs folder",
    )
    stalled_after_s: float = Field(
        600.0, ge=0, description="how long the running job may give no sign of life before it is told of; 0: for ever"
    )
    unload_after_s: float = Field(
        0.0, ge=0, description="after how long without a job networks are forgotten to give memory back; 0: never"
    )
    shutdown_grace_s: float = Field(
        0.0,
        ge=0,
        description="how long the running job may go on at shutdown before it is put back, to run at the next start",
    )

    apikey: SecretStr = Field(
        SecretStr(""),
        description="the key callers send as X-API-KEY, or several with commas between; empty: open to all",
    )
    pictures_need_key: bool = Field(False, description="close finished pictures to callers without the key as well")

    tams_keys: SecretStr = Field(
        SecretStr(""), description="keys of staged jobs, with commas between: KEY, or APPLICATION=KEY; empty: none"
    )
    tams_public_keys: str = Field(
        "", description="folder with APPLICATION.pem for each application that signs its staged jobs; empty: none"
    )
    tams_clock_skew_s: float = Field(
        300.0, ge=0, description="how far the time of a signed request may be off; 0: as far as it likes"
    )
    tams_rate_limit: int = Field(0, ge=0, description="requests a second of each application; 0: no limit")
    tams_notify_hosts: str = Field(
        "localhost,127.0.0.1,::1", description="hosts that are told of staged jobs, with commas between; *: any"
    )
    tams_models_path: Path = Field(
        Path("tams_models.json"), description="which files the numbers of staged jobs mean; in place of the bundled"
    )
    tams_lenient_sizes: bool = Field(False, description="take sides of staged jobs in steps of 8, not of 64")
    tams_parts_floor_px: int = Field(
        0,
        ge=0,
        le=2048,
        description="paint found parts of staged jobs at the area of this square at least; 0: as asked",
    )
    tams_upload_bytes: int = Field(20 * 2**20, ge=1024, description="largest upload for staged jobs")
    tams_job_limit_s: float = Field(1800.0, gt=0, description="how long a staged job may run before it fails")

    preset: str = Field("", description="the preset of requests that name none; empty: chosen by what is on disk")
    models_root: Path = Path("models")
    output_path: Path = Path("outputs")
    styles_path: Path = Field(Path("styles"), description="your own style files; they replace bundled ones by name")
    wildcards_path: Path = Field(
        Path("wildcards"), description="your own word lists, looked at before the bundled ones"
    )
    presets_path: Path = Field(Path("presets"), description="your own preset files; they replace bundled ones by name")
    config_path: Path = Field(
        Path("config.txt"), validation_alias=_variable("config_path", "config_path"), description="Fooocus's own file"
    )

    auto_download: bool = Field(False, description="fetch published model files that a request needs, before it runs")
    hf_mirror: str = Field(
        "", validation_alias=_variable("hf_mirror", "HF_MIRROR"), description="fetch from here instead of Hugging Face"
    )

    max_body_bytes: int = Field(256 * 2**20, ge=1024, description="largest request body")
    max_json_bytes: int = Field(64 * 2**20, ge=1024, description="largest request body that is no form with files")
    body_timeout_s: float = Field(300.0, gt=0, description="how long a request body may take to arrive")
    max_connections: int = Field(
        2000, ge=16, description="open connections, and requests under way, beyond which requests are refused"
    )
    max_prompt_characters: int = Field(MAX_PROMPT_CHARACTERS, ge=1, description="longest prompt, negative one alike")
    max_side_px: int = Field(SizeLimits.max_side_px, ge=64, description="longest side of a picture")
    max_pixels: int = Field(SizeLimits.max_pixels, ge=64 * 64, description="largest area of a picture")
    max_input_bytes: int = Field(64 * 2**20, ge=1024, description="largest file of a picture that a client sends")
    max_input_pixels: int = Field(
        25_000_000, ge=64 * 64, description="largest area of a picture that a client sends, as its header tells it"
    )
    fetch_timeout_s: float = Field(10.0, gt=0, le=600, description="how long fetching a picture may take in all")
    max_fetch_redirects: int = Field(5, ge=0, le=20, description="redirects that are followed to a picture")
    fetch_private: bool = Field(
        False, description="fetch pictures from loopback, private and other closed networks as well"
    )
    ip_adapter_weighting: ImagePromptWeighting = Field(
        "fooocus", description="how image prompts weigh: as in Fooocus, or as in the paper on IP-Adapter (`standard`)"
    )
    black_out_nsfw: bool = Field(False, description="paint unsafe pictures black, whatever the request says")
    png_level: int = Field(
        PNG_LEVEL,
        ge=0,
        le=9,
        description="how hard PNGs are packed: 0 not at all, 1 quick, 9 slow and a little smaller",
    )
    bare_base64: bool = Field(False, description="base64 results without data:image/...;base64, in front")

    device: Device = "auto"
    gpu_device_id: int = Field(0, ge=0, description="which of several graphics cards")
    precision: Precision = Field("auto", description="of the denoising network")
    vae_precision: Precision = Field("auto", description="of the autoencoder")
    vram: Vram = Field("normal", description="how much of what a picture takes is on the device at a time")
    compile: Compile = Field(
        "auto", description="compile the networks in the background; until that is done they run as they are"
    )
    guidance_until: float = Field(
        1.0, ge=0, le=1, description="leave the negative prompt out when a picture has come so far"
    )
    whole_pass_every: int = Field(
        1, ge=1, le=5, description="of so many network calls one is whole, the others reuse its depths"
    )
    cpu_threads: int = Field(0, ge=0, description="threads of the renderer on a CPU; 0: its own choice")
    pictures_at_once: int = Field(1, ge=1, le=8, description="how many pictures are painted together")

    @field_validator("base_url", "webhook_url", mode="after")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        stripped = value.strip()
        if stripped and not stripped.lower().startswith(WEB):
            raise ValueError("must begin with http:// or https://")
        return stripped

    @field_validator("apikey", mode="after")
    @classmethod
    def _is_some_key(cls, value: SecretStr) -> SecretStr:
        """A key of commas and blanks alone must not leave the server open."""
        if value.get_secret_value() and not _keys_of(value):
            raise ValueError("must hold a key")
        return value

    @field_validator("webhook_secret", mode="after")
    @classmethod
    def _is_secret_of_webhooks(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            secret_bytes(value.get_secret_value())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def public_url(self) -> str:
        """The prefix of links, without a final slash: configured, or made of host and port, never from a request."""
        return self.base_url.rstrip("/") or f"http://{_authority(self.host)}:{self.port}"

    @property
    def api_keys(self) -> tuple[str, ...]:
        """Any of which opens the server; none: it is open to all."""
        return _keys_of(self.apikey)

    @property
    def webhook_key(self) -> bytes:
        """What webhooks are signed with; empty: they are not."""
        return secret_bytes(self.webhook_secret.get_secret_value()) if self.webhook_secret.get_secret_value() else b""

    @property
    def journal_url(self) -> str:
        """The database of the journal as SQLAlchemy names it."""
        return self.database_url or f"sqlite:///{(self.output_path / 'journal.db').absolute().as_posix()}"


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """The settings from flags (by field name), environment and defaults. Raises ``BadSettings``."""
    try:
        return Settings(**flags)
    except ValidationError as error:
        lines = (f"{_setting_of(entry['loc'])}: {entry['msg']}" for entry in error.errors(include_input=False))
        raise BadSettings("\n".join(lines)) from None


def config_variables() -> dict[str, str]:
    """What the environment holds for keys of Fooocus's ``config.txt``, which go by the same names there."""
    return {key: os.environ[key] for key in CONFIG_KEYS if key in os.environ}


def without_server_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for a server that shall share nothing with the user's own but models and device."""
    kept = {f"{PREFIX}{name.upper()}" for name in _SHARED_WITH_DEMO}
    ours = {"API_PORT", "FOOOCUS_DB_CONF"}
    return {
        name: value
        for name, value in environ.items()
        if name not in ours and (not name.upper().startswith(PREFIX) or name.upper() in kept)
    }


_SHARED_WITH_DEMO = (
    "models_root",
    "styles_path",
    "wildcards_path",
    "presets_path",
    "config_path",
    "preset",
    "device",
    "gpu_device_id",
    "precision",
    "vae_precision",
    "vram",
    "compile",
    "cpu_threads",
)


def _keys_of(text: SecretStr) -> tuple[str, ...]:
    keys = (key.strip() for key in text.get_secret_value().split(","))
    return tuple(key for key in keys if key)


def _authority(host: str) -> str:
    """A host as it stands in an address; "every interface" is reached as the local one."""
    if host in ANY_HOST:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _setting_of(loc: Iterable[int | str]) -> str:
    """``--port / FOOOCUSAPI_PORT``, whichever of its names the value came by."""
    name = str(next(iter(loc), "settings"))
    field = {"API_PORT": "port", "FOOOCUS_DB_CONF": "database_url", "HF_MIRROR": "hf_mirror"}.get(
        name, name.removeprefix(PREFIX).lower()
    )
    return f"--{field.replace('_', '-')} / {PREFIX}{field.upper()}"
