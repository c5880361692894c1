import errno
import os
from pathlib import Path

import pytest

from pd_bench.results.result_file import refuse_same_file, result_file
from pd_core.errors import ConfigError


def test_the_file_appears_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with result_file(path) as write:
        assert not path.exists()
        write("{}")
    assert path.read_text() == "{}\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_result_survives_a_run_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def fail() -> None:
        with result_file(path):
            raise RuntimeError("the run failed")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_refused_on_entry(tmp_path: Path) -> None:
    def enter(path: Path) -> None:
        with result_file(path):
            pytest.fail("entered")

    with pytest.raises(ConfigError, match="directory"):
        enter(tmp_path)
    with pytest.raises(ConfigError, match=r"No such file.*--json"):
        enter(tmp_path / "none" / "out.json")


def test_a_pipe_or_a_device_is_refused_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)

    def enter(path: Path) -> None:
        with result_file(path):
            pytest.fail("entered")

    for path in (pipe, link):
        with pytest.raises(ConfigError, match="not a plain file"):
            enter(path)
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "out.json"
    link.symlink_to(tmp_path / "there" / "real.json")
    with result_file(link) as write:
        write("{}")
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.json").read_text() == "{}\n"


def test_one_file_of_two_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch()
    (tmp_path / "there").mkdir()
    refuse_same_file(("--json", path), ("--report", tmp_path / "b.html"), ("--csv", None))
    with pytest.raises(ConfigError, match="--json and --report are one file"):
        refuse_same_file(("--json", path), ("--report", tmp_path / "there" / ".." / "a.json"))


def test_two_runs_that_write_one_file_at_the_same_time_both_end_with_a_whole_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.json"
    with result_file(path) as first:
        with result_file(path) as second:
            assert len(list(tmp_path.iterdir())) == 2
            second("second")
        assert path.read_text() == "second\n"
        first("first")
    assert path.read_text() == "first\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with result_file(tmp_path / "out.json"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_of_one_line_and_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)

    def run() -> None:
        with result_file(path) as write:
            write("{}")

    with pytest.raises(ConfigError, match=r"out.json: No space left on device; .*--json"):
        run()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
