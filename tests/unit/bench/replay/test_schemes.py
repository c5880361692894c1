"""The schemes on a virtual clock: a fixed k, a race, and who takes part in what."""

from collections.abc import Callable

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.replay.dispatch import Client, Dispatcher
from pd_bench.replay.race import RaceSession
from pd_bench.replay.scheme_client import scheme_client
from pd_bench.replay.schemes import SCHEMES, parse_scheme, parse_schemes
from pd_bench.replay.workload import Work
from pd_bench.results.result import RequestRecord
from pd_bench.results.series import Timeline
from pd_core.errors import CloudUnavailable, ConfigError, PdError, QueueFull
from pd_core.generation import ServerInfo
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Shown
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud

PROMPT = tuple(i % 40 for i in range(200))
SLOW = SpeedProfile("slow", "a test", 1 / 400, 0.05)  # its own first token after 0.55 s
FAST = SpeedProfile("fast", "a test", 1 / 4000, 0.01)  # after 0.06 s
LENGTH = 40


def run_one(
    name: str,
    script: Script,
    profile: SpeedProfile = SLOW,
    pace_s: float = 0.1,
    length: int = LENGTH,
) -> tuple[RequestRecord, Timeline, ScriptedCloud]:
    """Carry one request in a scheme; return what is known of it, and the cloud."""
    cloud = ScriptedCloud(script)

    def engine() -> LocalEngine:
        return EmulatedDeviceEngine(profile, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])

    def client_of(_: Work) -> Client:
        return scheme_client(
            parse_scheme(name),
            link=lambda: cloud,
            engine=engine,
            pace_s=pace_s,
            device_profile=profile,
        )

    sampling = SamplingParams(forced_length=length)
    dispatcher = Dispatcher(
        name,
        0,
        lambda w: Ask(str(w.id), w.prompt_token_ids, 200, sampling),
        timeout_s=1000.0,
        watched=[0],
    )
    run_virtual(dispatcher.run_open_loop([Work(0, 1, 0.0, PROMPT, length)], client_of))
    (record,), (timeline,) = dispatcher.records, dispatcher.timelines
    return record, timeline, cloud


def refuse(error: PdError, from_stream: int = 1) -> Callable[[int], PdError | None]:
    return lambda number: error if number >= from_stream else None


DIES = Script(cut_after=5, refuse=refuse(CloudUnavailable("it is gone"), from_stream=2))


@pytest.mark.parametrize("k", [1, 14, 39])
def test_a_fixed_k_is_exactly_what_the_cloud_makes(k: int) -> None:
    record, timeline, cloud = run_one(f"pd-device-k{k}", Script())
    assert record.error is None
    assert record.planned_tokens == record.cloud_tokens == record.cloud_tokens_generated == k
    assert record.handoff_position == k
    assert timeline.sources == "c" * k + "d" * (LENGTH - k)
    assert cloud.sent == []  # neither more was asked for nor less


def test_a_fixed_k_is_kept_where_the_planner_would_take_another() -> None:
    adapted, _, _ = run_one("pd-device", Script())
    assert adapted.error is None
    assert adapted.cloud_tokens not in (1, 30)
    # Too few: the reader sees the seam that the planner avoids. Too many: the cloud works longer.
    few, _, _ = run_one("pd-device-k1", Script())
    assert few.largest_gap_s is not None
    assert adapted.largest_gap_s is not None
    assert few.largest_gap_s > adapted.largest_gap_s + 0.1
    ready = SpeedProfile("ready", "a test", 1 / 500, 0.01)
    least, _, _ = run_one("pd-device", Script(), ready)
    many, _, _ = run_one("pd-device-k30", Script(), ready)
    assert least.cloud_tokens < many.cloud_tokens == 30


def test_a_device_ahead_of_the_first_cloud_token_goes_on_alone() -> None:
    record, timeline, _ = run_one("pd-device-k30", Script(), FAST)
    assert record.error is None
    assert timeline.sources == "d" * LENGTH


def test_an_answer_shorter_than_k_is_the_cloud_s() -> None:
    record, timeline, _ = run_one("pd-device-k30", Script(), length=9)
    assert record.error is None
    assert timeline.sources == "c" * 9


def test_a_fixed_k_survives_a_cloud_that_dies() -> None:
    record, timeline, _ = run_one("pd-device-k30", DIES)
    assert record.error is None
    assert timeline.sources == "c" * 5 + "d" * (LENGTH - 5)


def test_the_cloud_wins_a_race_and_its_tokens_come_without_a_pace() -> None:
    script = Script(first_token_s=0.3, step_s=0.02)
    record, timeline, cloud = run_one("race-only", script)
    assert record.error is None
    assert timeline.sources == "c" * LENGTH
    # As scripted to the microsecond, although the pace is five times slower.
    expected = [0.3 + 0.02 * i for i in range(LENGTH)]
    assert timeline.shown_at_s == pytest.approx(expected, abs=1e-6)
    assert record.largest_gap_s == pytest.approx(0.02)
    assert cloud.open_streams == 0


def test_the_device_wins_a_race_and_the_cloud_is_cancelled() -> None:
    record, timeline, cloud = run_one("race-only", Script(first_token_s=0.3), FAST)
    assert record.error is None
    assert timeline.sources == "d" * LENGTH
    assert record.ttft_s == pytest.approx(200 / 4000 + 0.01, abs=0.02)
    assert record.cloud_tokens == 0
    assert len(cloud.starts) == 1  # it did take part
    assert cloud.open_streams == 0


def test_a_race_that_the_cloud_refuses_is_the_device_s() -> None:
    record, timeline, _ = run_one("race-only", Script(refuse=refuse(QueueFull("full"))))
    assert record.error is None
    assert timeline.sources == "d" * LENGTH


def test_a_winner_that_fails_later_fails_the_request() -> None:
    record, timeline, _ = run_one("race-only", DIES)
    assert record.error is not None
    assert "it is gone" in record.error
    assert len(timeline.shown_at_s) == 5


class _DeadLink(ScriptedCloud):
    async def info(self) -> ServerInfo:
        raise CloudUnavailable("no route")


def test_a_race_without_a_cloud_is_run_by_the_device_alone() -> None:
    client = scheme_client(
        parse_scheme("race-only"),
        link=lambda: _DeadLink(),
        engine=lambda: EmulatedDeviceEngine(SLOW, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS]),
        pace_s=0.1,
        device_profile=SLOW,
    )

    async def main() -> RaceSession:
        await client.start()
        request = Ask("r", PROMPT, 200, SamplingParams(forced_length=5))
        session = client.session(request, "race-only")
        assert isinstance(session, RaceSession)
        assert [s.position async for s in session.run() if isinstance(s, Shown)] == [*range(5)]
        await client.close()
        return session

    outcome = run_virtual(main()).outcome
    assert outcome.cloud_tokens_generated == 0
    assert outcome.notes == ["no route"]


def test_no_side_helps_beyond_its_scheme() -> None:
    def no_link() -> CloudLink:
        raise AssertionError("device-only has no link")

    def no_engine() -> LocalEngine:
        raise AssertionError("cloud-only has no engine")

    cloud = ScriptedCloud()
    engine = EmulatedDeviceEngine(SLOW, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
    given = {"pace_s": 0.1, "device_profile": SLOW}
    scheme_client(parse_scheme("device-only"), link=no_link, engine=lambda: engine, **given)  # type: ignore[arg-type]
    scheme_client(parse_scheme("cloud-only"), link=lambda: cloud, engine=no_engine, **given)  # type: ignore[arg-type]
    broken, _, _ = run_one("cloud-only", DIES)
    assert broken.error is not None
    assert broken.device_tokens == 0


def test_what_is_shown_was_there_before() -> None:
    _, timeline, _ = run_one("pd-device", Script())
    assert len(timeline.arrived_at_s) == len(timeline.shown_at_s) == LENGTH
    pairs = zip(timeline.arrived_at_s, timeline.shown_at_s, strict=True)
    assert all(arrived <= shown + 1e-9 for arrived, shown in pairs)
    assert timeline.arrived_at_s[0] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("pd-devise",), "unknown scheme 'pd-devise'; known: device-only, .*pd-device-kN"),
        (("pd-device-k0",), "unknown scheme"),
        (("pd-device-r0.0",), "unknown scheme"),
        (("pd-device-r1.0",), "unknown scheme"),
        (("pd-device-r1.5",), "unknown scheme"),
        (("pd-device-k1x",), "unknown scheme"),
        (("pd-device-k9999999",), "unknown scheme"),
        ((), "no scheme is named"),
        (("race-only", "race-only"), "named twice"),
    ],
)
def test_wrong_names_are_refused(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_schemes(names)


def test_names_say_who_takes_part() -> None:
    named = {s.name: s for s in parse_schemes((*SCHEMES, "pd-device-k14", "race-only"))}
    assert [name for name, s in named.items() if not s.uses_cloud] == ["device-only"]
    assert [name for name, s in named.items() if not s.uses_device] == ["cloud-only"]
    assert named["pd-device-k14"].cloud_tokens == 14
    assert [name for name, s in named.items() if s.labels] == ["pd-device-k14", "race-only"]
