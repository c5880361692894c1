"""Changed keys are taken into use; files that cannot be used change nothing."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pd_core.errors import ConfigError
from pd_server.keys.key_file import NamedKey, digest
from pd_server.keys.key_watch import watch_keys
from pd_server.keys.keyring import Keyring
from tests.eventually import eventually

ANNA, BERT = NamedKey("anna", (digest(b"a"),)), NamedKey("bert", (digest(b"b"),))


class _Files:
    """Stands for what the files hold."""

    def __init__(self) -> None:
        self.now: tuple[NamedKey, ...] | ConfigError = (ANNA,)
        self.num_reads = 0

    def read(self) -> tuple[NamedKey, ...]:
        self.num_reads += 1
        if isinstance(self.now, ConfigError):
            raise self.now
        return self.now


@asynccontextmanager
async def _watched(keyring: Keyring, files: _Files) -> AsyncIterator[None]:
    task = asyncio.create_task(watch_keys(keyring, files.read, every_s=0.001))
    try:
        await eventually(lambda: files.num_reads > 1)
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_changed_keys_are_taken_into_use() -> None:
    files, keyring = _Files(), Keyring([ANNA])
    async with _watched(keyring, files):
        files.now = (ANNA, BERT)
        await eventually(lambda: keyring.names == ("anna", "bert"))


async def test_a_broken_file_changes_nothing_and_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    files, keyring = _Files(), Keyring([ANNA])
    with caplog.at_level(logging.ERROR):
        async with _watched(keyring, files):
            files.now = ConfigError("[keys.bert] is wrong")
            before = files.num_reads
            await eventually(lambda: files.num_reads > before + 5)
            assert keyring.names == ("anna",)
            files.now = (BERT,)
            await eventually(lambda: keyring.names == ("bert",))
    assert [record.message for record in caplog.records] == [
        "the keys stay as they are: [keys.bert] is wrong"
    ]
