"""The user's folders, also of a user without a home."""

from pathlib import Path

import pytest

from pd_core.files.kept_results import keep, kept
from pd_core.host.user_folders import expanded, user_folder
from pd_core.settings.program import Program


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arbitrary user id in a container: no HOME, and no entry in the user database."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)


def test_the_variable_counts_if_it_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/someone")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert user_folder("XDG_STATE_HOME", ".local/state") == Path("/elsewhere")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert user_folder("XDG_STATE_HOME", ".local/state") == Path("/srv/someone/.local/state")
    assert expanded(Path("~/x")) == Path("/srv/someone/x")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_no_folder_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_folder("XDG_STATE_HOME", ".local/state") is None
    assert expanded(Path("~/x")) == Path("~/x")
    assert Program("pd-device").config_path(None) is None
    keep("speeds", "key", 1)  # costs nothing but time
    assert kept("speeds", "key") is None
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert user_folder("XDG_STATE_HOME", ".local/state") == Path("/elsewhere")
