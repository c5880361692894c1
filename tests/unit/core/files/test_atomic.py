"""A file is replaced whole or not at all, with the permissions that it is to have."""

import os
import stat
from pathlib import Path

import pytest

from pd_core.files.atomic import part_file, put_in_place, replaced


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("old")
    return path


def test_a_reader_sees_the_older_file_until_all_of_the_new_one_is_there(path: Path) -> None:
    with replaced(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.parent == path.parent  # the same disk: it takes the name in one step
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_older_file_and_nothing_beside_it(
    path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        with replaced(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_mode_is_an_ordinary_file_s_unless_another_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    (tmp_path / "own").touch(0o600)
    with replaced(tmp_path / "a"), replaced(tmp_path / "b", mode=0o600):
        pass
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}
    assert modes["a"] == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)
    assert modes["b"] == 0o600


def test_only_what_is_to_last_is_forced_to_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with replaced(path):
        pass
    assert not synced
    with replaced(path, durable=True):
        pass
    assert len(synced) == 1


def test_two_that_write_one_file_have_a_part_each(path: Path) -> None:
    with part_file(path) as first, part_file(path) as second:
        first.write_text("first")
        second.write_text("second")
        put_in_place(second, path, durable=False)
        assert path.read_text() == "second"
        put_in_place(first, path, durable=False)
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
