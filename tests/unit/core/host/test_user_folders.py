"""The user's folders, also of a user without a home."""

import errno
import os
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_core.files.kept_results import keep, kept
from pd_core.host.user_folders import expanded, user_folder
from pd_core.settings.program import Program
from pd_core.store.model_store import PulledName, find_pulled, pulled_names


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


@pytest.mark.parametrize("home", ["another's", "relative"])
def test_a_home_that_is_no_place_of_this_user_is_none(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    closed = str(tmp_path / "closed")
    monkeypatch.setenv("HOME", closed if home == "another's" else "closed")
    Path(closed).mkdir()
    look = os.stat

    def refusing(path: str | Path, **how: bool) -> os.stat_result:  # a test may run as root
        if home == "another's" and str(path).startswith(f"{closed}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **how)

    monkeypatch.setattr("os.stat", refusing)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("PD_MODELS_DIR", raising=False)
    assert user_folder("XDG_DATA_HOME", ".local/share") is None
    assert Program("pd-device").config_path(None) is None
    assert find_pulled(PulledName("o", "m")) is None
    assert list(pulled_names()) == []
    monkeypatch.setenv("PD_MODELS_DIR", f"{closed}/models")
    if home == "another's":
        with pytest.raises(ConfigError, match=r"cannot be looked into .*PD_MODELS_DIR"):
            find_pulled(PulledName("o", "m"))
