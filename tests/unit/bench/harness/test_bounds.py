"""What no measurement can be asked is refused with its bounds, as an error of its user."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pd_bench.cli import main
from pd_bench.clouds.settings import CloudSettings
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.endpoint.settings import EndpointSettings
from pd_bench.harness.bounds import WARM_UP_TOKENS, check_between, check_timeout, warm_up_failure
from pd_bench.kv.settings import PRESETS, KvSettings
from pd_bench.overhead.overhead import measure_overhead
from pd_bench.overhead.settings import StreamsSettings
from pd_bench.replay.settings import ReplaySettings
from pd_core.errors import ConfigError, EngineError

TRACE = Path("t.csv")
NAN = float("nan")


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf"), 0.9, 2.1, 10**30])
def test_a_number_out_of_its_bounds_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"--x is .*; it must lie between 1 and 2 things"):
        check_between("--x", value, 1, 2, "things")


def test_a_number_at_its_bounds_is_taken() -> None:
    check_between("--x", 1, 1, 2)
    check_between("--x", 2, 1, 2)


def test_a_timeout_that_no_warm_up_could_keep_is_refused() -> None:
    shown_s = (WARM_UP_TOKENS - 1) * 2.0
    check_timeout(shown_s + 0.1, 2.0)
    with pytest.raises(ConfigError, match=r"--pace 2 the 16 tokens of a warm-up alone take 30"):
        check_timeout(shown_s, 2.0)


def test_a_warm_up_that_the_timeout_ended_is_the_user_s_to_mend() -> None:
    overdue = warm_up_failure("TimeoutError: no end within 0.5 s", 0.5, "cloud-only")
    assert isinstance(overdue, ConfigError)
    assert "of cloud-only had not ended within 0.5 s; give it longer with --timeout" in str(overdue)
    broken = warm_up_failure("EngineError: out of order", 0.5)
    assert isinstance(broken, EngineError)
    assert str(broken) == "the warm-up request failed: EngineError: out of order"


def _replay(**changes: Any) -> object:
    return ReplaySettings(trace=TRACE, device_profile="slow", **changes)


def _endpoint(**changes: Any) -> object:
    return EndpointSettings(trace=TRACE, url="http://localhost:1", **changes)


def _cloud(**changes: Any) -> object:
    return CloudSettings(trace=None, **changes)


def _kv(**changes: Any) -> object:
    sensible: dict[str, Any] = {
        **{"shape": PRESETS["small"], "pairs": (), "decode_contexts": (), "prefill_contexts": ()},
        **{"decode_rounds": 10, "prefill_rounds": 10, "fast": False, "num_threads": 1},
        **{"clock": "wall", "seed": 0},
    }
    return KvSettings(**(sensible | changes))


def _overhead(pace_s: float) -> object:
    return run_virtual(measure_overhead(pace_s, 1000))


@pytest.mark.parametrize(
    ("make", "changes", "why"),
    [
        (_replay, {"pace_s": 1e300}, "--pace is 1e\\+300; it must lie between 0.001 and 60 sec"),
        (_replay, {"pace_s": 1e-300}, "--pace is 1e-300"),
        (_replay, {"timeout_s": 0.001}, "--timeout is 0.001; it must lie between 0.1 and 1e\\+06"),
        (_replay, {"timeout_s": 1e300}, "--timeout is 1e"),
        (_replay, {"timeout_s": 1.0, "pace_s": 0.1}, "--timeout is 1.0; at --pace 0.1"),
        (_endpoint, {"pace_s": 1e300}, "--pace is 1e"),
        (_endpoint, {"timeout_s": 0.001}, "--timeout is 0.001"),
        (_endpoint, {"temperature": NAN}, "--temperature is nan; it must lie between 0 and 10"),
        (_cloud, {"timeout_s": NAN}, "--timeout is nan"),
        (_kv, {"num_threads": 10**30}, "--threads is 10+; it must lie between 1 and 1024"),
        (_kv, {"decode_rounds": 10**30}, "--rounds is 10+; it must lie between"),
        (_overhead, {"pace_s": 1e300}, "--pace is 1e"),
        (StreamsSettings, {"num_streams": 1, "step_s": NAN}, "--step is nan; .* 0.001 and 60"),
    ],
)
def test_every_measurement_has_bounds(
    make: Callable[..., object], changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        make(**changes)


@pytest.mark.parametrize(
    "arguments",
    [
        ("overhead", "--tokens"),
        ("streams", "--tokens"),
        ("streams", "--number"),
        ("gaps", "--tokens"),
        ("gaps", "--prefills"),
        ("gaps", "--decodes"),
        ("gaps", "--prompt-tokens"),
        ("api", "--chats"),
        ("turns", "--rounds"),
    ],
)
def test_a_count_beyond_all_bounds_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.argv", ["pd-bench", *arguments, str(10**30)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "less than or equal to" in " ".join(capsys.readouterr().err.split())
