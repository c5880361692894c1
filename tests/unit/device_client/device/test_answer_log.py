"""A line of figures for every answer, and never a word of it."""

import json
import logging
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_core.generation import FinishReason
from pd_device_client.contract.outcome import Origin, Outcome, Shown
from pd_device_client.device.answer_log import AnswerLog


def outcome() -> Outcome:
    shown = [
        Shown(0, 17, "a secret", Origin.CLOUD, 0.25),
        Shown(1, 18, " of two", Origin.DEVICE, 0.3),
    ]
    return Outcome(
        "r-1",
        "pd-device",
        planned_tokens=9,
        pace_s=0.05,
        shown=shown,
        finish_reason=FinishReason.STOP,
        handoff_position=1,
        cloud_tokens=1,
        cloud_tokens_generated=4,
    )


def test_an_answer_is_a_line_of_figures(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("{}\n")  # it goes on after what is there
    with AnswerLog(path, lambda: 1_700_000_000) as log:
        log.write(outcome())
        first, line = path.read_text().splitlines()  # at once, not when it is closed
    assert first == "{}"
    assert json.loads(line) == {
        "ended_at_s": 1_700_000_000,
        "request_id": "r-1",
        "mode": "pd-device",
        "finish_reason": "stop",
        "planned_tokens": 9,
        "cloud_tokens": 1,
        "cloud_tokens_generated": 4,
        "device_tokens": 1,
        "handoff_position": 1,
        "local_only": False,
        "sent_to_cloud": False,
        "cloud_reason": "no-cloud",
        "cloud_cost": None,
        "pace_s": 0.05,
        "shown_at_s": [0.25, 0.3],
    }
    assert "secret" not in line


@pytest.mark.parametrize("path", [".", "nowhere/answers.jsonl"])
def test_a_file_that_cannot_be_opened_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--answer-log .* cannot be written"):
        AnswerLog(tmp_path / path, lambda: 0)


def test_a_full_disk_is_told_of_once_and_answers_go_on(caplog: pytest.LogCaptureFixture) -> None:
    with AnswerLog(Path("/dev/full"), lambda: 0) as log, caplog.at_level(logging.WARNING):
        log.write(outcome())
        log.write(outcome())
    assert [record.getMessage() for record in caplog.records] == [
        "no more lines in /dev/full: No space left on device"
    ]
