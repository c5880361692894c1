"""`pd-bench handoffs` on a real server and a real engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from pd_bench.exactness.settings import HandoffSettings
from pd_core.errors import ConfigError

pytestmark = pytest.mark.heavy

POSITIONS = 5


def test_every_handoff_between_unlike_kernels_is_tried(tmp_path: Path) -> None:
    out = tmp_path / "handoffs.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pd_bench", "handoffs", "--model", "random-tiny"),
            *("--positions", str(POSITIONS), "--device-kernel", "portable"),
            *("--device-threads", "1", "--json", str(out)),
        ],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(out.read_text(encoding="utf-8"))["answers"]
    assert [(each["numerics"], each["sampling"]) for each in answers] == [
        (numerics, sampling)
        for numerics in ("integer", "float32")
        for sampling in ("greedy", "seeded")
    ]
    for each in answers:
        assert each["exactness"] == "identical"
        assert each["handoffs"] == POSITIONS, "at 0 the device makes all of it"
        assert each["differing"] == []
    assert "every answer is the device's own" in done.stdout


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"numerics": "int3"}, r"--numerics names 'int3'; known: integer, float32"),
        ({"numerics": " , "}, "--numerics names none"),
        ({"device_threads": "0"}, "--device-threads is '0'"),
        ({"device_threads": "two"}, "--device-threads is 'two'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], why: str) -> None:
    hints = get_type_hints(HandoffSettings, include_extras=True)
    (field,) = options
    (option,) = hints[field].__metadata__
    with pytest.raises(ConfigError, match=why):
        option.read(options[field])
