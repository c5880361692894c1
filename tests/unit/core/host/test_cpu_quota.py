"""A container's quota of processor time is found in both versions of control groups."""

from pathlib import Path

import pytest

from pd_core.host import cpu
from pd_core.host.cpu import cores_in_words, num_cores
from pd_core.host.cpu_quota import cpu_quota
from pd_core.host.torch_environment import prepare_environment


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


def test_version_2_and_the_groups_around_count(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    assert cpu_quota(tmp_path, own) is None, "no group limits it"
    _write(tmp_path / "outer" / "inner", cpu__max="max 100000")
    assert cpu_quota(tmp_path, own) is None
    _write(tmp_path / "outer", cpu__max="150000 100000")
    assert cpu_quota(tmp_path, own) == 1.5
    _write(tmp_path / "outer" / "inner", cpu__max="50000 100000")
    assert cpu_quota(tmp_path, own) == 0.5


def test_version_1_also_where_only_the_own_group_is_mounted(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    _write(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert cpu_quota(tmp_path, own) is None
    _write(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    assert cpu_quota(tmp_path, own) == 2


@pytest.mark.parametrize("content", ["", "x y", "1 0", "100000"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, content: str) -> None:
    own = tmp_path / "own"
    assert cpu_quota(tmp_path, own) is None
    own.write_text("0::/../..\nnonsense\n")
    _write(tmp_path, cpu__max=content)
    assert cpu_quota(tmp_path, own) is None


def test_threads_heed_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_present", lambda: 8)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu, "cpu_quota", lambda: None)
    assert (num_cores(), cores_in_words()) == (8, "8 cores")
    monkeypatch.setattr(cpu, "cpu_quota", lambda: 2.5)
    assert num_cores() == 2
    assert cores_in_words() == "2 of 8 cores, because this container may use 2.5"
    monkeypatch.setattr(cpu, "cpu_quota", lambda: 0.5)
    assert num_cores() == 1
    monkeypatch.setattr(cpu, "cpu_quota", lambda: 20.0)
    assert num_cores() == 8


@pytest.mark.parametrize(("quota", "said", "then"), [(2.5, None, "2"), (2.5, "5", "5")])
def test_torch_gets_no_more_threads(
    monkeypatch: pytest.MonkeyPatch, quota: float, said: str | None, then: str
) -> None:
    monkeypatch.setattr(cpu, "_present", lambda: 8)
    monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
    environment = {} if said is None else {"OMP_NUM_THREADS": said}
    monkeypatch.setattr("os.environ", environment)
    prepare_environment(fast=True)
    assert environment["OMP_NUM_THREADS"] == then
