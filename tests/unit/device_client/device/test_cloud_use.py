"""The day's account of the cloud, in a file that processes share."""

import json
import logging
from datetime import date
from pathlib import Path

import pytest

from pd_device_client.device.cloud_use import CloudUse

MONDAY, TUESDAY = date(2026, 11, 30), date(2026, 12, 1)


def _spent(use: CloudUse) -> tuple[int, float]:
    seen = (0, 0.0)

    def look(tokens: int, cost: float) -> tuple[int, float]:
        nonlocal seen
        seen = (tokens, cost)
        return 0, 0.0

    use.spend(look)
    return seen


def test_two_processes_count_on_one_account(tmp_path: Path) -> None:
    file = tmp_path / "new" / "use.json"
    one, other = (CloudUse(file, lambda: MONDAY) for _ in range(2))
    one.spend(lambda *_: (70, 0.5))
    other.spend(lambda *_: (20, 0.25))
    assert _spent(one) == (90, 0.75)
    assert json.loads(file.read_text())["day"] == "2026-11-30"


def test_a_day_ends_only_when_the_date_moves_forward(tmp_path: Path) -> None:
    today = [TUESDAY]
    use = CloudUse(tmp_path / "use.json", lambda: today[0])
    use.spend(lambda *_: (70, 0.5))
    today[0] = MONDAY  # the clock was wrong and is set back
    assert _spent(use) == (70, 0.5)
    today[0] = TUESDAY
    assert _spent(use) == (0, 0.0)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"day": "x"}', '{"day": "2026-11-30", "tokens": -5, "cost": 0}',
     '{"day": "2026-11-30", "tokens": 5, "cost": NaN}', " " * 5000],
)  # fmt: skip
def test_a_damaged_file_is_said_and_written_anew(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "use.json"
    file.write_text(content)
    use = CloudUse(file, lambda: MONDAY)
    with caplog.at_level(logging.WARNING):
        use.spend(lambda *_: (3, 0.0))
    assert "damaged" in caplog.text
    assert _spent(CloudUse(file, lambda: MONDAY)) == (3, 0.0)


def test_a_file_that_cannot_be_written_still_counts_in_this_process(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    use = CloudUse(blocked / "use.json", lambda: MONDAY)
    use.spend(lambda *_: (3, 0.0))
    assert _spent(use) == (3, 0.0)
