"""Settings: where a value comes from, what stops the start, what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fooocusapi.settings import BadSettings, Settings, load_settings, without_server_settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("FOOOCUSAPI_") or name in ("API_PORT", "FOOOCUS_DB_CONF", "config_path"):
            monkeypatch.delenv(name)


def test_the_contracts_defaults() -> None:
    settings = load_settings({})
    assert (settings.host, settings.port, settings.queue_size, settings.queue_history) == ("127.0.0.1", 8888, 100, 0)
    assert settings.public_url == "http://127.0.0.1:8888"
    assert (settings.persistent, settings.webhook_url, settings.apikey.get_secret_value()) == (False, "", "")
    assert settings.output_path == Path("outputs")


def test_flags_stand_above_variables_and_those_above_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "1")
    assert load_settings({}).port == 1
    monkeypatch.setenv("FOOOCUSAPI_PORT", "2")
    assert load_settings({}).port == 2
    assert load_settings({"port": "3"}).port == 3


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOOOCUSAPI_PORT", "")
    monkeypatch.setenv("FOOOCUS_DB_CONF", "")
    assert load_settings({}).port == 8888


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "0.0.0.0", "port": 7866}, "http://127.0.0.1:7866"),
        ({"host": "::1"}, "http://[::1]:8888"),
        ({"base_url": "https://me.example/api/"}, "https://me.example/api"),
        ({"base_url": "  "}, "http://127.0.0.1:8888"),
    ],
)
def test_the_prefix_of_links(given: dict[str, object], url: str) -> None:
    assert load_settings(given).public_url == url


def test_the_journal_lies_beside_the_pictures_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_settings({"output_path": tmp_path}).journal_url == f"sqlite:///{tmp_path}/journal.db"
    monkeypatch.setenv("FOOOCUS_DB_CONF", "postgresql://u:p@h/d")
    assert load_settings({}).journal_url == "postgresql://u:p@h/d"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"port": "abc"}, "--port / FOOOCUSAPI_PORT"),
        ({"port": "70000"}, "--port"),
        ({"queue_size": "0"}, "--queue-size / FOOOCUSAPI_QUEUE_SIZE"),
        ({"queue_history": "-1"}, "--queue-history"),
        ({"log_level": "loud"}, "--log-level"),
        ({"webhook_url": "ftp://secret"}, "--webhook-url"),
        ({"base_url": "localhost:1"}, "--base-url"),
        ({"device": "tpu"}, "--device"),
        ({"apikey": " , "}, "--apikey"),
    ],
)
def test_a_bad_value_is_named_and_not_shown(given: dict[str, str], named: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load_settings(given)
    assert named in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_secret_that_is_none_is_not_shown() -> None:
    with pytest.raises(BadSettings, match=r"--webhook-secret.*base64") as caught:
        load_settings({"webhook_secret": "whsec_s3cret"})
    assert "s3cret" not in str(caught.value)


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "x")
    with pytest.raises(BadSettings) as caught:
        load_settings({"queue_size": "y"})
    assert "--port" in str(caught.value)
    assert "--queue-size" in str(caught.value)


def test_secrets_are_not_printed() -> None:
    settings = load_settings(
        {
            "apikey": "s3cret",
            "webhook_secret": "s3cret" * 6,
            "webhook_url": "http://x/?token=s3cret",
            "database_url": "postgresql://u:s3cret@h/d",
        }
    )
    assert "s3cret" not in repr(settings) + str(settings)


@pytest.mark.parametrize(("given", "keys"), [("", ()), ("a", ("a",)), (" a b ,c,,", ("a b", "c"))])
def test_keys_are_parted_by_commas(given: str, keys: tuple[str, ...]) -> None:
    assert load_settings({"apikey": given}).api_keys == keys


def test_levels_are_read_in_any_case() -> None:
    assert load_settings({"log_level": "INFO"}).log_level == "info"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).port = 1  # type: ignore[misc]


def test_the_demo_shares_models_and_device_and_nothing_else() -> None:
    environ = {
        "PATH": "/bin",
        "API_PORT": "1",
        "FOOOCUS_DB_CONF": "x",
        "FOOOCUSAPI_APIKEY": "k",
        "FOOOCUSAPI_OUTPUT_PATH": "o",
        "FOOOCUSAPI_MODELS_ROOT": "m",
        "FOOOCUSAPI_DEVICE": "cpu",
    }
    assert without_server_settings(environ) == {
        "PATH": "/bin",
        "FOOOCUSAPI_MODELS_ROOT": "m",
        "FOOOCUSAPI_DEVICE": "cpu",
    }


def test_every_setting_that_is_not_plain_is_described() -> None:
    plain = {"log_level", "models_root", "output_path", "device"}
    undescribed = {name for name, field in Settings.model_fields.items() if not field.description}
    assert undescribed == plain
