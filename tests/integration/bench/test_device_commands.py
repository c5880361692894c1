"""`pd-bench api` and `turns` on real processes, small: what they say, not how fast it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pd_bench.cli import main
from pd_bench.overhead.lateness import UNJUDGED_TOKENS
from tests.command_here import run_here

pytestmark = pytest.mark.heavy


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pd_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def document(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_second_turn_prefills_only_what_is_new(tmp_path: Path) -> None:
    out = tmp_path / "turns.json"
    done = bench(
        *("turns", "--rounds", "1", "--prompt-tokens", "300", "--answer-tokens", "16"),
        *("--words-tokens", "20", "--json", str(out)),
    )
    assert done.returncode == 0, done.stderr
    assert "median ratio" in done.stdout
    (found,) = document(out)["rounds"]
    # Of the second prompt, all but the words is kept: prompt and answer, whose last token is new.
    assert found["cached_tokens"] == 300 + 16 - 1
    # Slowed to 400 tokens a second, 300 take 0.75 s; 21 take 0.05.
    assert found["first_s"] > 0.7
    assert found["second_s"] < found["first_s"]
    first, second = found["cloud_tokens"]
    assert first > second


def test_a_conversation_too_long_for_the_model_is_refused() -> None:
    done = run_here(main, "turns", "--model", "skipv1-python-5m", "--prompt-tokens", "2000")
    assert done.returncode == 2
    assert "room for 2048" in done.stderr


def test_every_chat_gets_its_whole_answer(tmp_path: Path) -> None:
    out = tmp_path / "api.json"
    done = bench(
        *("api", "--rounds", "1", "--tokens", "12", "--chats", "6", "--chat-tokens", "5"),
        *("--json", str(out)),
    )
    assert done.returncode == 0, done.stderr
    found = document(out)
    assert found["num_tokens"] == 12 - UNJUDGED_TOKENS  # of one round
    assert found["added"]["p50_s"] == pytest.approx(
        found["api"]["p50_s"] - found["session"]["p50_s"]
    )
    assert [wave["failed"] for wave in found["waves"]] == [0, 0]
    for wave in found["waves"]:
        assert 0 < wave["first_s"]["p50_s"] < wave["last_s"]["p50_s"]
        assert wave["rss_bytes"] > 50 << 20
