"""Environment variables have defaults, and invalid values are reported, never ignored."""

import pytest

from engine.errors import PlainError
from engine.runtime import settings
from engine.runtime.platform_support import LINUX
from engine.runtime.settings import Sharing, sharing
from tests.cases import for_each


@for_each("value", ["", "0", "false", "No", " off "])
def test_a_server_is_not_shared_by_default(value):
    assert sharing({"COMPRESSION_EXPLORER_SHARED": value}) is None and sharing({}) is None


def test_limits_of_a_shared_server_come_from_their_variables(tmp_path):
    numbers = {
        "COMPRESSION_EXPLORER_SHARED_RUNS": "1",
        "COMPRESSION_EXPLORER_SHARED_QUEUE": "7",
        "COMPRESSION_EXPLORER_SHARED_SECONDS": "60",
    }
    on = {"COMPRESSION_EXPLORER_SHARED": "1"}
    assert sharing(on) == Sharing() and Sharing().folder is None
    assert sharing(on | numbers | {"COMPRESSION_EXPLORER_SHARED_FOLDER": str(tmp_path)}) == Sharing(
        tmp_path.resolve(), 1, 7, 60
    )


def test_the_folder_is_the_one_a_link_leads_to(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    folder = {
        "COMPRESSION_EXPLORER_SHARED": "on",
        "COMPRESSION_EXPLORER_SHARED_FOLDER": str(tmp_path / "link"),
    }
    assert sharing(folder).folder == (tmp_path / "there").resolve()


@for_each(
    "variable, value",
    [
        ("COMPRESSION_EXPLORER_SHARED", "maybe"),
        ("COMPRESSION_EXPLORER_SHARED_RUNS", "0"),
        ("COMPRESSION_EXPLORER_SHARED_QUEUE", "many"),
        ("COMPRESSION_EXPLORER_SHARED_SECONDS", "-5"),
        ("COMPRESSION_EXPLORER_SHARED_SECONDS", "1e9"),
        ("COMPRESSION_EXPLORER_SHARED_FOLDER", "/no/such/folder"),
        ("COMPRESSION_EXPLORER_SHARED_FOLDER", "~nobody-at-all/x"),
    ],
)
def test_an_invalid_limit_gives_one_message(variable, value):
    with pytest.raises(PlainError, match=rf"^{variable} is '{value}'.*\.$"):
        sharing({"COMPRESSION_EXPLORER_SHARED": "1"} | {variable: value})


def test_the_other_settings_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path))
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOSTS", " App.example.com, *.example.org ,")
    assert settings.home() == tmp_path and settings.hosts() == ("app.example.com", "*.example.org")
    for name in (
        "COMPRESSION_EXPLORER_HOME",
        "COMPRESSION_EXPLORER_HOSTS",
        "DASK_SCHEDULER_ADDRESS",
        "COMPRESSION_EXPLORER_MEMORY",
    ):
        monkeypatch.delenv(name, raising=False)
    assert (settings.hosts(), settings.scheduler(), settings.memory()) == ((), "", "")


@pytest.mark.skipif(not LINUX, reason="other systems have other folders")
def test_the_default_folder_is_in_the_users_cache_unless_an_earlier_one_exists(
    monkeypatch, tmp_path
):
    monkeypatch.delenv("COMPRESSION_EXPLORER_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    earlier = tmp_path / ".cache" / "compression-explorer"
    assert settings.home() == earlier
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert settings.home() == tmp_path / "elsewhere" / "compression-explorer"
    earlier.mkdir(parents=True)
    assert settings.home() == earlier
