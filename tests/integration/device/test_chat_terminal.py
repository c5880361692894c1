"""`pd-device chat` on a real terminal: a conversation as somebody types it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()=>][0-9A-Za-z]?)")


READS = "Alt-Enter: a line"  # in the line below a prompt that waits for words


class Terminal:
    """A process on a pseudo-terminal, and what it has written so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", end: int) -> None:
        self.process = process
        self.screen = ""
        self._end = end
        self._raw = b""
        self._seen = 0

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, words: str, within_s: float = 60) -> str:
        """Wait until the words come after those waited for before; return all between."""
        deadline = time.monotonic() + within_s
        while words not in self.screen[self._seen :]:
            assert time.monotonic() < deadline, f"no {words!r} in {self.screen[self._seen :]!r}"
            assert self.read(), f"it ended without {words!r}: {self.screen!r}"
        begin = self._seen
        self._seen = self.screen.index(words, begin) + len(words)
        return self.screen[begin : self._seen]

    def wait_for_more(self, num_characters: int, within_s: float = 60) -> None:
        """Wait until so many characters came after the words waited for."""
        deadline = time.monotonic() + within_s
        while len(self.screen) < self._seen + num_characters:
            assert time.monotonic() < deadline, f"only {self.screen[self._seen :]!r}"
            assert self.read(), f"it ended: {self.screen!r}"

    def read(self) -> bool:
        """Take what there is; False at the end."""
        if not select.select([self._end], [], [], 0.2)[0]:
            return True
        try:
            part = os.read(self._end, 65536)
        except OSError:  # so ends a terminal whose process has ended
            return False
        if b"\x1b[6n" in part:  # where is the cursor: at the beginning
            os.write(self._end, b"\x1b[1;1R")
        self._raw += part
        self.screen = ESCAPES.sub("", self._raw.decode(errors="replace")).replace("\r", "")
        return bool(part)


@contextmanager
def terminal(tmp_path: Path, *options: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PD_DEVICE_")}
    environment |= {"TERM": "xterm", "XDG_STATE_HOME": str(tmp_path), "COLUMNS": "200"}
    command = [
        *(sys.executable, "-m", "pd_device_client", "chat", "--model", "random-tiny"),
        *("--threads", "1", "--seed", "1", *options),
    ]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
def test_a_conversation_with_figures_a_stop_and_an_end(tmp_path: Path) -> None:
    with terminal(tmp_path, "--max-tokens", "200", "--pace", "0.02") as chat:
        assert "loading the model" in chat.wait_for("random-tiny; /help for help")
        chat.wait_for(READS)
        chat.type("hello there, this is the first of two turns\r")
        chat.wait_for(READS)
        chat.type("stop me\r")
        chat.wait_for("stop me")
        chat.wait_for_more(60)  # characters of the answer
        os.kill(chat.process.pid, signal.SIGINT)  # what Ctrl-C becomes where nobody edits a line
        chat.wait_for("(stopped)")
        chat.wait_for(READS)
        chat.type("/stats\r")
        figures = chat.wait_for("made by the cloud 0")
        kept = re.search(r"(\d+) tokens of its prompt were kept from before", figures)
        assert kept is not None
        assert int(kept.group(1)) >= 40, "the second turn's prompt begins with the first turn"
        assert "chat: answers 2" in figures
        chat.wait_for(READS)
        chat.type("\x04")
        chat.process.wait(60)
        assert chat.process.returncode == 0
    history = (tmp_path / "pd-device" / "chat-history").read_text()
    assert "+stop me" in history


@pytest.mark.slow
def test_no_history_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    with terminal(tmp_path, "--no-history", "--max-tokens", "2") as chat:
        chat.wait_for(READS)
        chat.type("/quit\r")
        chat.process.wait(60)
        assert chat.process.returncode == 0
    assert not (tmp_path / "pd-device").exists()
