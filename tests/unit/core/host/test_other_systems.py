"""Each guard of what only some systems have, on a system that lacks it."""

import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pd_core.files.api_key import key_exposure
from pd_core.files.atomic import new_folder, replace_text
from pd_core.host import (
    affinity,
    confinement,
    cpu,
    disk,
    file_lock,
    new_process,
    open_files,
    process_memory,
    signals,
)
from pd_core.process import ending_signals
from pd_core.sockets import listening


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The modules as they are on Windows."""
    guarded = (confinement, file_lock, new_process, open_files, signals, ending_signals, listening)
    with monkeypatch.context() as patch:
        for name in ("fcntl", "resource"):
            patch.setitem(sys.modules, name, None)
        for name in ("SIGHUP", "SIGKILL", "SIGIO", "setitimer"):
            patch.delattr(signal, name)
        patch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)
        patch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
        patch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
        for module in guarded:
            importlib.reload(module)
        yield patch
    for module in guarded:
        importlib.reload(module)


@pytest.mark.usefixtures("windows")
def test_bounds_that_windows_lacks_change_nothing() -> None:
    confinement.confine(1)
    confinement.end_after(0.001)
    with confinement.ended_with_the_writer(0):
        pass
    assert open_files.raise_open_files() == 8192
    assert signals.KILLED is None


@pytest.mark.usefixtures("windows")
def test_a_closed_window_ends_a_process_in_order_on_windows() -> None:
    assert ending_signals.ending_signals() == (signal.SIGTERM, signal.SIGUSR2)
    assert new_process.apart() == {"creationflags": 512}
    assert listening._ALONE == -5


def test_a_system_without_any_such_signal_has_one_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ending_signals, "CLOSING", None)
    assert ending_signals.ending_signals() == (signal.SIGTERM,)


async def test_signals_reach_a_loop_that_handles_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise NotImplementedError

    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGUSR2)
    for name in ("add_signal_handler", "remove_signal_handler"):
        monkeypatch.setattr(loop, name, refuse)
    heard = asyncio.Event()
    try:
        signals.begin_obeying(signal.SIGUSR2, heard.set)
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(heard.wait(), 30)
        signals.stop_obeying(signal.SIGUSR2)
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        interrupt = signal.getsignal(signal.SIGINT)
        signals.begin_obeying(signal.SIGINT, heard.set)
        signals.stop_obeying(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, interrupt)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_lock_is_a_byte_on_windows(windows: pytest.MonkeyPatch, tmp_path: Path) -> None:
    locked: list[tuple[int, int]] = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(_: int, mode: int, num_bytes: int) -> None:
            if locked:
                raise OSError(36, "deadlock avoided")
            locked.append((mode, num_bytes))

    windows.setitem(sys.modules, "msvcrt", Msvcrt)
    with (tmp_path / "x").open("ab") as file:
        file.write(b"abc")
        file_lock.lock_now(file)
        assert (locked, file.tell()) == ([(2, 1)], 3)
        with pytest.raises(BlockingIOError):
            file_lock.lock_now(file)


def test_a_lock_excludes_another_here(tmp_path: Path) -> None:
    with (tmp_path / "x").open("ab") as file, (tmp_path / "x").open("ab") as other:
        file_lock.lock_now(file)
        with pytest.raises(BlockingIOError):
            file_lock.lock_now(other)


def test_files_and_folders_are_written_where_no_folder_can_be_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[tuple[Path, int]] = []
    really = os.open

    def watched(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "access is denied")
        opened.append((Path(path), flags))
        return really(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(disk, "_WINDOWS", True)
    with new_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("1")
    replace_text(tmp_path / "b", "2")
    assert (tmp_path / "made/a").read_text() + (tmp_path / "b").read_text() == "12"
    synced = [flags for path, flags in opened if flags == os.O_RDWR]
    assert len(synced) == 2, "what is only read cannot be forced to the disk there"


def test_a_mode_that_says_nothing_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text("secret")
        key.chmod(0o644)
        key.parent.chmod(0o755)
        assert "chmod 600" in key_exposure(key)
        monkeypatch.setattr(disk, "_WINDOWS", True)
        assert key_exposure(key) == ""


def test_without_affinity_and_proc_there_are_cores_and_no_details(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name)
    assert affinity.available_cores() == frozenset()
    with affinity.pinned((0,)):
        pass
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "none")
    assert cpu.num_cores() >= 1
    assert (cpu.cpu_description(), cpu.cpu_name(), cpu.cpu_flags()) == (None, None, frozenset())
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(process_memory, "_CLEAR", tmp_path / "none/x")
    process_memory.forget_peak()
    assert process_memory.memory_bytes("VmRSS") is None


def test_what_linux_tells_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: A Chip\nflags\t\t: fpu avx512f\n\nprocessor: 1\n"
    )
    monkeypatch.setattr(cpu, "_CPUINFO", info)
    assert cpu.cpu_name() == "A Chip"
    assert cpu.cpu_flags() == {"fpu", "avx512f"}
    status = tmp_path / "status"
    status.write_text("VmHWM:\t  12 kB\nVmRSS:\t  8 kB\n")
    monkeypatch.setattr(process_memory, "_STATUS", status)
    assert process_memory.memory_bytes("VmRSS") == 8 << 10
