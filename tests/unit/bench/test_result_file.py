from pathlib import Path

import pytest

from pd_bench.result_file import result_file
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
