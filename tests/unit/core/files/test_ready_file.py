"""What one process writes into a ready file is what another reads of it."""

import json
import os
import stat
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_core.files.ready_file import (
    ReadyServer,
    check_ready_file,
    read_ready_file,
    write_ready_file,
)


def test_a_server_s_and_a_device_s_addresses_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    assert read_ready_file(path) is None
    write_ready_file(path, grpc="127.0.0.1:1", http="127.0.0.1:2")
    assert json.loads(path.read_text()) == {
        "grpc": "127.0.0.1:1",
        "http": "127.0.0.1:2",
        "pid": os.getpid(),
    }
    assert read_ready_file(path) == ReadyServer("127.0.0.1:1", "127.0.0.1:2", os.getpid())
    write_ready_file(path, http="127.0.0.1:3")
    assert read_ready_file(path) == ReadyServer("", "127.0.0.1:3", os.getpid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["no/such/folder/file", "."])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--ready-file .* folder that exists and can be written"):
        check_ready_file(tmp_path / name)
    with pytest.raises(ConfigError, match="--ready-file"):
        write_ready_file(tmp_path / name, http="127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    check_ready_file(path)
    assert list(tmp_path.iterdir()) == []
