"""The session on a virtual clock: scripted clouds, emulated devices, every race and fault."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.errors import (
    BothEnginesFailed,
    CloudAuthenticationFailed,
    CloudUnavailable,
    EngineError,
    PdError,
    QueueFull,
)
from pd_core.generation import (
    Admitted,
    CloudEvent,
    Extend,
    Fingerprints,
    Finished,
    FinishReason,
    Load,
    Start,
    Stop,
    TokenLogprobs,
    Tokens,
)
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.happenings import (
    Claimed,
    ClaimReturned,
    CloudArrived,
    CloudAsked,
    CloudFailed,
    DeviceBegan,
    DeviceFailed,
    DevicePassed,
    Happened,
    Happening,
    Replanned,
)
from pd_device_client.contract.outcome import Origin, Outcome
from pd_device_client.contract.ports import CloudStream, LocalEngine, LocalSequence
from pd_device_client.contract.text_source import TextSource
from pd_device_client.planning.planner import Plan
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.session import Session
from pd_device_client.session.sides import Sides
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud
from tests.wrapped_engine import WrappedEngine

PROMPT = tuple(i % 40 for i in range(200))
PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)


def expected(length: int, sampling: SamplingParams | None = None) -> list[int]:
    """The answer as one engine alone makes it."""
    sampling = sampling or SamplingParams(forced_length=length)
    state, ids = RollingHash(VOCAB_SIZE, [EOS], PROMPT), list[int]()
    for position in range(length):
        ids.append(state.next_token(position, sampling))
        state.extend(ids[-1:])
    return ids


class SlowingEngine(WrappedEngine):
    """An emulated engine whose passes take longer by a factor between two numbers of tokens."""

    def __init__(
        self, profile: SpeedProfile, slow_at: int, factor: float, slow_until: int | None = None
    ) -> None:
        super().__init__(EmulatedDeviceEngine(profile, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS]))
        self.profile = profile
        self.slow_at = slow_at
        self.slow_until = slow_until
        self.factor = factor

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        return _SlowingSequence(self, self.inner.open(sampling))


class _SlowingSequence:
    def __init__(self, engine: SlowingEngine, sequence: LocalSequence) -> None:
        self._engine = engine
        self._sequence = sequence
        self._fed = 0

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        self._fed += len(token_ids)
        until = self._engine.slow_until
        if self._fed > self._engine.slow_at and (until is None or self._fed <= until):
            extra = self._engine.factor - 1
            await asyncio.sleep(extra * self._engine.profile.decode_s)
        return await self._sequence.feed(token_ids, sample_position, positions)

    def close(self) -> None:
        self._sequence.close()


class FailingEngine(WrappedEngine):
    """An emulated engine that raises once it has been fed a number of tokens."""

    def __init__(self, fail_at: int) -> None:
        super().__init__(EmulatedDeviceEngine(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS]))
        self._fail_at = fail_at

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        return _FailingSequence(self.inner.open(sampling), self._fail_at)


class _FailingSequence:
    def __init__(self, sequence: LocalSequence, fail_at: int) -> None:
        self._sequence = sequence
        self._left = fail_at

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        self._left -= len(token_ids)
        if self._left < 0:
            raise EngineError("out of memory")
        return await self._sequence.feed(token_ids, sample_position, positions)

    def close(self) -> None:
        self._sequence.close()


@dataclass
class Run:
    outcome: Outcome
    cloud: ScriptedCloud
    error: PdError | None


def carry(
    script: Script | None = None,
    *,
    mode: Mode = Mode.PD_DEVICE,
    cloud_tokens: int = 10,
    length: int = 40,
    max_tokens: int = 100,
    pace_s: float = 0.1,
    profile: SpeedProfile = PROFILE,
    fail_at: int | None = None,
    with_device: bool = True,
    leave_after: int | None = None,
    cancel_after: int | None = None,
    slow_at: int | None = None,
    slow_until: int | None = None,
    factor: float = 1.0,
    expected_tokens: int | None = None,
    cloud: ScriptedCloud | None = None,
    text: TextSource | None = None,
    told: list[Happened] | None = None,
    reads_s: float = 0.0,
    asked_s: float | None = None,
    cloud_estimate: CloudEstimate | None = None,
) -> Run:
    """Carry one request to its end on a virtual clock."""

    async def main() -> Run:
        link = cloud or ScriptedCloud(script or Script())
        emulated = EmulatedDeviceEngine(profile, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
        engine: LocalEngine = emulated if fail_at is None else FailingEngine(fail_at)
        if slow_at is not None:
            engine = SlowingEngine(profile, slow_at, factor, slow_until)
        sides = Sides(
            link=None if mode is Mode.DEVICE_ONLY else link,
            engine=engine if with_device else None,
            cloud_estimate=cloud_estimate
            or CloudEstimate(0.01, Load(decode_step_s=0.02), step_s=0.02),
            device_estimate=DeviceEstimate(profile),
            fingerprints=Fingerprints(),
            eos_token_ids=(EOS,),
        )
        sampling = SamplingParams(forced_length=length)
        ask = Ask(
            "r", PROMPT, max_tokens, sampling, mode=mode, asked_s=asked_s, watched=told is not None
        )
        planned = {Mode.DEVICE_ONLY: 0, Mode.CLOUD_ONLY: max_tokens}.get(mode, cloud_tokens)
        plan = Plan(mode, planned, pace_s)
        expected = expected_tokens or length
        session = Session(ask, plan, sides, expected_tokens=expected, text=text)
        error = None
        answer = session.run()
        try:
            async for shown in answer:
                if reads_s:
                    await asyncio.sleep(reads_s)
                if isinstance(shown, Happened):
                    assert told is not None, "nobody watches"
                    told.append(shown)
                elif leave_after is not None and shown.position + 1 >= leave_after:
                    break
                elif cancel_after is not None and shown.position + 1 == cancel_after:
                    session.cancel()
        except PdError as caught:
            error = caught
        finally:
            await answer.aclose()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, "a task outlived its session"
        assert link.open_streams == 0, "a stream outlived its session"
        return Run(session.outcome, link, error)

    return run_virtual(main())


def check_whole(run: Run, length: int = 40) -> None:
    """The answer is whole, exact, and evenly shown."""
    assert run.error is None
    assert run.outcome.token_ids == expected(length)
    assert run.outcome.finish_reason == "stop"
    gaps = run.outcome.gaps_s
    assert all(gap >= run.outcome.pace_s - 1e-9 for gap in gaps), "a burst"


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("cancel_after", [1, 5, 12, 39])
@pytest.mark.parametrize("watched", [False, True])
def test_a_cancelled_answer_ends_with_what_was_shown(
    mode: Mode, cancel_after: int, watched: bool
) -> None:
    told: list[Happened] | None = [] if watched else None
    run = carry(mode=mode, cancel_after=cancel_after, told=told)
    assert run.error is None
    assert run.outcome.token_ids == expected(40)[:cancel_after]
    assert run.outcome.finish_reason == "cancelled"


def test_the_handoff_is_exact_even_and_frees_the_cloud() -> None:
    run = carry()
    check_whole(run)
    outcome = run.outcome
    assert outcome.ttft_s == pytest.approx(0.3)
    assert outcome.handoff_position is not None
    assert 1 <= outcome.handoff_position <= 10
    assert outcome.largest_gap_s == pytest.approx(0.1)
    assert outcome.cloud_tokens == outcome.handoff_position
    assert outcome.cloud_tokens_generated <= 10
    assert outcome.disagreed == 0


SLOW = SpeedProfile("slow", "a test", 1 / 400, 0.09)  # below a pace of 0.05 s


def carry_below_pace(script: Script, told: list[Happened]) -> Run:
    """A long answer where a short one is expected, on a device that cannot hold the pace."""
    load = Load(decode_step_s=script.step_s)
    return carry(
        script,
        cloud_tokens=20,
        expected_tokens=60,
        length=457,
        max_tokens=500,
        pace_s=0.05,
        profile=SLOW,
        told=told,
        cloud_estimate=CloudEstimate(0.01, load, step_s=script.step_s),
    )


def _names(told: list[Happened]) -> list[str]:
    return [type(happened.what).__name__ for happened in told]


def _left(told: list[Happened]) -> list[int]:
    """Where in `told` the rest was left to the cloud."""
    whats = [what for _, what in told]
    cloud = Mode.CLOUD_ONLY
    return [i for i, w in enumerate(whats) if isinstance(w, Replanned) and w.mode is cloud]


@pytest.mark.parametrize("cloud_step_s", [0.02, 0.045])
def test_a_device_below_the_pace_leaves_a_long_answer_to_the_cloud(cloud_step_s: float) -> None:
    told = list[Happened]()
    run = carry_below_pace(Script(step_s=cloud_step_s), told)
    check_whole(run, 457)
    outcome = run.outcome
    assert outcome.cloud_tokens > 400
    assert outcome.unused_tokens < 40
    assert len(run.cloud.starts) <= 2
    [left] = _left(told)
    assert "DevicePassed" not in _names(told[left:])
    [note] = outcome.notes
    assert note.startswith("this device makes 11.1 tokens a second; 20 were asked for: the cloud")


def test_a_device_below_the_pace_is_there_when_the_cloud_fails() -> None:
    told = list[Happened]()
    run = carry_below_pace(Script(step_s=0.045, cut_after=100, cut_streams=99), told)
    check_whole(run, 457)
    assert "DevicePassed" in _names(told[_left(told)[0] :])


@pytest.mark.parametrize("stall_s", [0.6, 2.0])
def test_a_cloud_that_stalls_is_waited_for_while_the_reader_has_tokens(stall_s: float) -> None:
    # Fast until then, so the reader has tokens for more than the stall: nobody needs the device.
    told = list[Happened]()
    run = carry_below_pace(Script(step_s=0.02, stall_after=150, stall_s=stall_s), told)
    check_whole(run, 457)
    assert len(_left(told)) == 1
    assert "DevicePassed" not in _names(told[_left(told)[0] :])


def test_the_device_comes_back_for_a_stall_and_leaves_again() -> None:
    told = list[Happened]()
    run = carry_below_pace(Script(step_s=0.045, stall_after=100, stall_streams=1), told)
    check_whole(run, 457)
    said = [what for _, what in told if isinstance(what, Replanned)][-3:]
    assert [words.mode for words in said] == [Mode.CLOUD_ONLY, Mode.DEVICE_ONLY, Mode.CLOUD_ONLY]
    assert said[1].why == "the cloud is late: this device makes the rest, from token 101"
    assert said[2].why.startswith("the cloud is back and makes the rest, from token ")
    assert run.outcome.notes[-1] == said[2].why
    assert run.outcome.unused_tokens < 60


def test_a_device_is_not_left_for_a_cloud_that_is_slower_still() -> None:
    told = list[Happened]()
    run = carry_below_pace(Script(step_s=0.2), told)
    check_whole(run, 457)
    assert _left(told) == []


@pytest.mark.parametrize(
    ("step_s", "decode_s", "pace_s"),
    [
        (0.08, 0.06, 0.04),  # both below the pace, and the cloud slower than the device
        (0.097, 0.108, 0.103),  # it would overtake the device, but not soon
        (0.077, 0.079, 0.05),
    ],
)
@pytest.mark.parametrize("first_token_s", [0.3, 0.9])
def test_a_cloud_hardly_faster_than_the_device_does_not_work_beside_it(
    step_s: float, decode_s: float, pace_s: float, first_token_s: float
) -> None:
    run = carry(
        Script(first_token_s=first_token_s, step_s=step_s),
        profile=SpeedProfile("d", "a test", 1 / 400, decode_s),
        cloud_tokens=3,
        pace_s=pace_s,
        length=150,
        max_tokens=200,
        cloud_estimate=CloudEstimate(0.3 - step_s, Load(decode_step_s=step_s), step_s=step_s),
    )
    check_whole(run, 150)
    assert run.outcome.cloud_tokens_generated < 20
    assert run.outcome.unused_tokens < 20
    assert run.outcome.tpot_s == pytest.approx(decode_s, rel=0.1)


def test_a_cloud_that_is_back_in_time_frees_the_device_in_cloud_only() -> None:
    told = list[Happened]()
    run = carry(
        Script(stall_after=5, stall_s=0.7), mode=Mode.CLOUD_ONLY, length=90, pace_s=0.05, told=told
    )
    check_whole(run, 90)
    assert run.outcome.device_tokens == 0
    assert _names(told).count("DevicePassed") < 10


def test_one_stall_is_no_slow_device() -> None:
    told = list[Happened]()
    run = carry(
        pace_s=0.06,
        length=200,
        max_tokens=200,
        slow_at=len(PROMPT) + 14,
        slow_until=len(PROMPT) + 15,
        factor=20.0,
        told=told,
    )
    gaps = run.outcome.gaps_s
    assert max(gaps) > 2 * 0.06, "it did stall"
    assert _left(told) == []
    assert run.outcome.device_tokens > 150


def test_what_nobody_was_shown_is_counted() -> None:
    run = carry()
    made = run.outcome.device_tokens_generated
    assert made >= run.outcome.device_tokens > 0
    unused = made + run.outcome.cloud_tokens_generated - 40
    assert run.outcome.unused_tokens == unused


@pytest.mark.parametrize("mode", list(Mode))
def test_the_same_answer_in_every_mode(mode: Mode) -> None:
    run = carry(mode=mode)
    check_whole(run)
    only = {Mode.DEVICE_ONLY: {Origin.DEVICE}, Mode.CLOUD_ONLY: {Origin.CLOUD}}
    origins = {shown.origin for shown in run.outcome.shown}
    assert origins == only.get(mode, {Origin.CLOUD, Origin.DEVICE})


def test_times_count_from_when_the_reader_asked() -> None:
    at_once = carry().outcome
    later = carry(asked_s=-0.25).outcome  # the virtual clock starts at 0
    assert at_once.ttft_s is not None
    assert later.ttft_s == pytest.approx(at_once.ttft_s + 0.25)
    assert later.token_ids == at_once.token_ids


def test_device_only_touches_no_network() -> None:
    assert carry(mode=Mode.DEVICE_ONLY).cloud.starts == []


@pytest.mark.parametrize("cloud_tokens", range(41))
def test_every_budget_gives_the_same_answer(cloud_tokens: int) -> None:
    check_whole(carry(cloud_tokens=cloud_tokens))


def test_the_device_claims_early_when_its_forecast_holds() -> None:
    # A fast device with a generous budget: the cloud is stopped long before its limit.
    fast = SpeedProfile("fast", "a test", 1 / 2000, 0.02)
    run = carry(Script(step_s=0.09), cloud_tokens=60, length=80, profile=fast)
    check_whole(run, 80)
    assert Stop() in run.cloud.sent
    assert run.outcome.cloud_tokens_generated < 20


def test_the_device_ahead_of_the_first_cloud_token_shows_its_own() -> None:
    run = carry(Script(first_token_s=5.0))
    check_whole(run)
    assert run.outcome.shown[0].origin is Origin.DEVICE
    assert run.outcome.ttft_s == pytest.approx(200 / 400, abs=0.06)


def test_a_slow_decoder_runs_ahead_unclaimed_until_the_cloud_comes() -> None:
    # D > tau: the device could not hold the pace to the end, so it does not claim at once.
    slow = SpeedProfile("slow", "a test", 1 / 400, 0.3)
    run = carry(Script(first_token_s=1.2), profile=slow, cloud_tokens=35, pace_s=0.1)
    check_whole(run)
    assert run.outcome.shown[0].origin is Origin.DEVICE
    assert run.outcome.cloud_tokens > 20


@pytest.mark.parametrize("cut_after", [0, 1, 5, 9, 10])
def test_the_cloud_dies(cut_after: int) -> None:
    run = carry(Script(cut_after=cut_after, cut_streams=99))
    check_whole(run)
    assert run.outcome.cloud_tokens == cut_after


def test_a_cut_stream_is_continued_when_the_seam_would_show() -> None:
    # The device needs 4 s for the prompt; one token is not enough to bridge that.
    slow = SpeedProfile("slow", "a test", 1 / 50, 0.05)
    run = carry(Script(cut_after=1, cut_streams=1), profile=slow, cloud_tokens=38)
    check_whole(run)
    assert len(run.cloud.starts) == 2
    assert run.cloud.starts[1].committed_token_ids == tuple(expected(40)[:1])
    assert run.outcome.largest_gap_s is not None
    assert run.outcome.largest_gap_s < 0.6


def test_a_budget_too_small_is_extended_while_the_stream_lives() -> None:
    # The device turns out to be four times slower than planned.
    slow = SpeedProfile("slow", "a test", 1 / 100, 0.05)
    run = carry(Script(step_s=0.08), profile=slow, cloud_tokens=4)
    check_whole(run)
    assert any(isinstance(message, Extend) for message in run.cloud.sent)
    assert run.outcome.largest_gap_s is not None
    assert run.outcome.largest_gap_s <= 0.15


def test_a_refused_request_is_answered_by_the_device_alone() -> None:
    run = carry(Script(refuse=lambda _: QueueFull("the queue is full", 30.0)))
    check_whole(run)
    assert run.outcome.cloud_tokens == 0
    assert run.outcome.notes == ["cloud: the queue is full"]


def test_a_stalled_cloud_is_left_behind() -> None:
    run = carry(Script(stall_after=3))
    check_whole(run)
    assert run.outcome.cloud_tokens == 3


@pytest.mark.parametrize("fail_at", [0, 100, 200, 205, 215, 230])
def test_the_device_fails_and_the_cloud_finishes(fail_at: int) -> None:
    run = carry(fail_at=fail_at)
    check_whole(run)
    assert run.outcome.notes == ["device: out of memory"]
    assert run.outcome.shown[-1].origin is Origin.CLOUD


def test_both_fail_and_what_was_committed_is_kept() -> None:
    script = Script(cut_after=4, refuse=lambda n: None if n == 1 else CloudUnavailable("gone"))
    run = carry(script, fail_at=100)
    assert isinstance(run.error, BothEnginesFailed)
    assert run.outcome.token_ids == expected(40)[:4]
    assert (run.outcome.finish_reason, run.outcome.error) == ("error", run.error)


def test_cloud_only_without_a_device_resumes_after_a_cut() -> None:
    run = carry(Script(cut_after=5, cut_streams=2), mode=Mode.CLOUD_ONLY, with_device=False)
    check_whole(run)
    assert [len(s.committed_token_ids) for s in run.cloud.starts] == [0, 5, 10]


def test_cloud_only_falls_back_to_the_device_when_the_cloud_is_gone_for_good() -> None:
    def refuse(number: int) -> PdError | None:
        return None if number == 1 else CloudAuthenticationFailed("the key was revoked")

    run = carry(Script(cut_after=5, refuse=refuse), mode=Mode.CLOUD_ONLY)
    check_whole(run)
    assert run.outcome.handoff_position == 5


def test_a_refusal_in_cloud_only_starts_the_device_at_once() -> None:
    run = carry(Script(refuse=lambda _: QueueFull("the queue is full", 30.0)), mode=Mode.CLOUD_ONLY)
    check_whole(run)
    assert run.outcome.ttft_s == pytest.approx(200 / 400, abs=0.06)


def test_a_silent_cloud_in_cloud_only_is_not_waited_for_until_its_deadline() -> None:
    # It took the connection and says nothing, ever: the deadline of 5 s is not the reader's.
    run = carry(Script(admitted_s=1e6), mode=Mode.CLOUD_ONLY)
    check_whole(run)
    assert run.outcome.ttft_s == pytest.approx(0.5 + 200 / 400, abs=0.06)


def test_a_cloud_that_is_busy_as_forecast_in_cloud_only_is_waited_for() -> None:
    slow = CloudEstimate(0.4, Load(decode_step_s=0.02), step_s=0.02)
    run = carry(Script(first_token_s=1.2), mode=Mode.CLOUD_ONLY, cloud_estimate=slow)
    check_whole(run)
    assert run.outcome.device_tokens == 0


def test_a_cloud_that_falls_silent_in_cloud_only_is_replaced_before_its_deadline() -> None:
    run = carry(Script(stall_after=20), mode=Mode.CLOUD_ONLY)
    check_whole(run)
    assert run.outcome.handoff_position == 20
    # The reader had tokens to spare; the reserve against a longer silence is a tenth at most.
    assert (run.outcome.largest_gap_s or 0.0) <= 0.1 * 1.1 + 1e-9


def test_a_typed_error_when_there_is_no_other_side() -> None:
    script = Script(refuse=lambda _: CloudAuthenticationFailed("no"))
    run = carry(script, mode=Mode.CLOUD_ONLY, with_device=False)
    assert isinstance(run.error, CloudAuthenticationFailed)


def test_a_differing_cloud_never_changes_a_committed_token() -> None:
    # The cloud differs from position 3 on: what it committed stays, the device goes on from it.
    run = carry(Script(wrong_from=3), cloud_tokens=8)
    assert run.error is None
    ids = run.outcome.token_ids
    assert ids[:3] == expected(40)[:3]
    assert len(ids) == 40


def test_a_missing_position_ends_the_stream_not_the_answer() -> None:
    check_whole(carry(Script(skip=4)))


def test_end_of_sequence_among_the_cloud_tokens() -> None:
    run = carry(length=6, cloud_tokens=10)
    check_whole(run, 6)
    assert run.outcome.handoff_position is None


@pytest.mark.parametrize("leave_after", [1, 5, 20])
def test_a_reader_who_leaves_cancels_both_sides(leave_after: int) -> None:
    run = carry(leave_after=leave_after)
    assert run.outcome.finish_reason == "cancelled"
    assert run.outcome.token_ids == expected(40)[:leave_after]


def test_the_limit_closes_the_answer() -> None:
    run = carry(length=90, max_tokens=20)
    assert run.outcome.finish_reason == "length"
    assert run.outcome.token_ids == expected(90)[:20]


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    first_token_s=st.floats(0.02, 3.0),
    step_s=st.floats(0.001, 0.3),
    rate=st.floats(60, 4000),
    decode_s=st.floats(0.005, 0.2),
    pace_s=st.floats(0.02, 0.2),
    cloud_tokens=st.integers(0, 50),
    length=st.integers(1, 45),
    cut_after=st.none() | st.integers(0, 20),
    cut_streams=st.integers(1, 9),
    stall_after=st.none() | st.integers(0, 20),
    fail_at=st.none() | st.integers(0, 260),
    slow_at=st.none() | st.integers(0, 260),
    factor=st.floats(1, 200),
    expected_tokens=st.integers(1, 100),
    mode=st.sampled_from([Mode.PD_DEVICE, Mode.CLOUD_ONLY]),
)
def test_whatever_happens_the_answer_is_exact(
    first_token_s: float,
    step_s: float,
    rate: float,
    decode_s: float,
    pace_s: float,
    cloud_tokens: int,
    length: int,
    cut_after: int | None,
    cut_streams: int,
    stall_after: int | None,
    fail_at: int | None,
    slow_at: int | None,
    factor: float,
    expected_tokens: int,
    mode: Mode,
) -> None:
    run = carry(
        Script(0.01, first_token_s, step_s, cut_after=cut_after, cut_streams=cut_streams,
               stall_after=stall_after),
        mode=mode,
        cloud_tokens=cloud_tokens,
        length=length,
        pace_s=pace_s,
        profile=SpeedProfile("any", "a test", 1 / rate, decode_s),
        fail_at=fail_at,
        slow_at=None if fail_at is not None else slow_at,
        factor=factor,
        expected_tokens=expected_tokens,
    )  # fmt: skip
    ids = run.outcome.token_ids
    assert ids == expected(length)[: len(ids)], "a token was lost, doubled or changed"
    assert all(gap >= pace_s - 1e-9 for gap in run.outcome.gaps_s), "a burst"
    if run.error is None:
        assert len(ids) == length
    else:
        assert fail_at is not None or mode is Mode.CLOUD_ONLY, "one side was well and gave up"


def test_a_late_admitted_is_answered_by_stop() -> None:
    # The device has its first token, and claims, long before the cloud admits the request.
    fast = SpeedProfile("fast", "a test", 1 / 2000, 0.02)
    run = carry(Script(admitted_s=3.0, first_token_s=3.2), profile=fast)
    check_whole(run)
    assert run.outcome.cloud_tokens == 0
    assert run.cloud.sent == [Stop()]


def test_an_extend_that_crosses_finished_becomes_a_new_start() -> None:
    # One token a stream: it is finished before the session can extend it.
    slow = SpeedProfile("slow", "a test", 1 / 60, 0.05)
    run = carry(profile=slow, cloud_tokens=1)
    check_whole(run)
    prefixes = [len(start.committed_token_ids) for start in run.cloud.starts]
    assert prefixes[:2] == [0, 1]
    assert run.outcome.largest_gap_s is not None
    assert run.outcome.largest_gap_s < 0.5


def test_a_differing_token_in_flight_at_the_claim_is_counted_and_dropped() -> None:
    # The fast device claims while the cloud, which differs from position 2 on, still sends.
    fast = SpeedProfile("fast", "a test", 1 / 2000, 0.02)
    run = carry(Script(step_s=0.09, wrong_from=2), cloud_tokens=60, profile=fast)
    assert run.error is None
    assert run.outcome.token_ids == expected(40)
    assert run.outcome.disagreed <= 1


def test_the_whole_answer_is_ahead_and_the_pace_stays_even() -> None:
    # Everything is there after 0.4 s; the reader still gets one token every 0.1 s.
    run = carry(Script(step_s=0.001), mode=Mode.CLOUD_ONLY)
    check_whole(run)
    assert run.outcome.gaps_s == pytest.approx([0.1] * 39)


def test_a_device_that_hangs_after_the_claim_is_left_to_the_cloud() -> None:
    run = carry(slow_at=230, factor=1e6)
    check_whole(run)
    assert run.outcome.shown[-1].origin is Origin.CLOUD
    assert run.outcome.largest_gap_s is not None
    assert run.outcome.largest_gap_s < 1.0
    assert len(run.cloud.starts) == 2


def test_a_device_that_slows_down_after_the_claim_gets_help() -> None:
    # From 0.05 to 0.5 s a token at a pace of 0.1: alone, the rest would come at 0.5.
    run = carry(slow_at=225, factor=10, length=60)
    check_whole(run, 60)
    assert run.outcome.tpot_s is not None
    assert run.outcome.tpot_s < 0.15


def test_an_answer_longer_than_expected_is_carried_on_at_the_pace() -> None:
    # D > tau: the budget was planned for 20 tokens, and the answer has 80.
    slow = SpeedProfile("slow", "a test", 1 / 400, 0.2)
    run = carry(profile=slow, cloud_tokens=12, expected_tokens=20, length=80)
    check_whole(run, 80)
    assert run.outcome.tpot_s is not None
    assert run.outcome.tpot_s < 0.15


def test_without_help_from_the_cloud_a_slow_device_keeps_its_own_even_pace() -> None:
    script = Script(refuse=lambda n: None if n == 1 else CloudAuthenticationFailed("no"))
    run = carry(script, slow_at=225, factor=10)
    check_whole(run)
    assert run.outcome.shown[-1].origin is Origin.DEVICE


class OddCloud(ScriptedCloud):
    """A cloud, or a link, with a bug: after its second token it does something odd."""

    odd: BaseException | Tokens | None = None

    async def open(self, start: Start) -> CloudStream:
        return _OddStream(await super().open(start), self.odd)


class _OddStream:
    def __init__(self, stream: CloudStream, odd: BaseException | Tokens | None) -> None:
        self._stream = stream
        self._odd = odd

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                yield event
                if isinstance(event, Tokens) and event.first_position == 1:
                    if isinstance(self._odd, Tokens):
                        yield self._odd
                    elif self._odd is not None:
                        raise self._odd

    async def send(self, message: Extend | Stop) -> None:
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()


@pytest.mark.parametrize("mode", [Mode.PD_DEVICE, Mode.CLOUD_ONLY])
@pytest.mark.parametrize("odd", [Tokens(2, ()), ValueError("a bug"), Tokens(40, (1,))])
def test_a_cloud_with_a_bug_does_not_end_the_answer(
    odd: BaseException | Tokens, mode: Mode
) -> None:
    cloud = OddCloud()
    cloud.odd = odd
    check_whole(carry(mode=mode, cloud=cloud))


class IdleCloud(ScriptedCloud):
    """A cloud that takes every request for finished."""

    async def open(self, start: Start) -> CloudStream:
        self.starts.append(start)
        return _IdleStream()


class _IdleStream:
    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        await asyncio.sleep(0.01)
        yield Admitted(Load())
        yield Finished(FinishReason.STOP, 0)

    async def send(self, message: Extend | Stop) -> None:
        pass

    def cancel(self) -> None:
        pass


def test_a_cloud_that_finishes_without_a_token_is_not_asked_for_ever() -> None:
    run = carry(mode=Mode.CLOUD_ONLY, cloud=IdleCloud())
    check_whole(run)
    assert len(run.cloud.starts) <= 4
    alone = carry(mode=Mode.CLOUD_ONLY, cloud=IdleCloud(), with_device=False)
    assert isinstance(alone.error, CloudUnavailable)
    assert len(alone.cloud.starts) == 4


def test_a_prefill_pass_that_hangs_is_bridged_by_the_cloud() -> None:
    # The second chunk of the prompt takes 30 s more than it should.
    run = carry(slow_at=150, factor=600, cloud_tokens=12)
    check_whole(run)
    assert run.outcome.largest_gap_s is not None
    assert run.outcome.largest_gap_s < 0.5


def test_a_device_ahead_of_a_lagging_stream_goes_on_until_it_is_overtaken() -> None:
    # The device is two tokens ahead when the first cloud token comes; D > tau, so it is overtaken.
    slow = SpeedProfile("slow", "a test", 1 / 500, 0.15)
    run = carry(Script(first_token_s=0.75), profile=slow, cloud_tokens=35, pace_s=0.1)
    check_whole(run)
    assert len(run.cloud.starts) == 1
    assert run.outcome.shown[1].origin is Origin.DEVICE
    assert run.outcome.cloud_tokens > 10


def test_the_last_pass_is_not_delayed_by_one_before_it() -> None:
    # The prompt is fed at 0.5 s; the cloud's 12th token comes at 0.96 s. A pass begun just before
    # would end late, and the device would be ready a pass later than it can be.
    device = SpeedProfile("d", "a test", 1 / 400, 0.2)
    run = carry(Script(first_token_s=0.3, step_s=0.06), profile=device, pace_s=0.2, cloud_tokens=12)
    check_whole(run)
    assert run.outcome.largest_gap_s == pytest.approx(0.2)


class HalfText:
    """Holds the first token's text back until the second one comes."""

    stopped, stop_string = False, None

    def __init__(self) -> None:
        self._num = 0

    def push(self, token_id: int) -> list[tuple[int, str]]:
        self._num += 1
        if self._num == 1:
            return []
        return [(0, ""), (1, "x")] if self._num == 2 else [(self._num - 1, "x")]

    def flush(self) -> list[tuple[int, str]]:
        return [(0, "")] if self._num == 1 else []


def test_text_held_back_does_not_hide_that_the_cloud_is_late() -> None:
    slow = SpeedProfile("slow", "a test", 1 / 400, 0.12)
    run = carry(Script(stall_after=1), profile=slow, cloud_tokens=30, text=HalfText())
    check_whole(run)
    assert run.outcome.ttft_s is not None
    assert run.outcome.ttft_s < 1.5


def all_of(told: list[Happened], kind: type[Happening]) -> list[tuple[float, Happening]]:
    return [(at_s, what) for at_s, what in told if isinstance(what, kind)]


def test_a_watcher_sees_arrivals_passes_and_the_handoff_at_their_instants() -> None:
    diary = list[Happened]()
    run = carry(told=diary)
    check_whole(run)
    assert [at_s for at_s, _ in diary] == sorted(at_s for at_s, _ in diary)
    assert all_of(diary, CloudAsked)[0] == (0.0, CloudAsked(10))
    assert all_of(diary, DeviceBegan) == [(0.0, DeviceBegan(0))]
    arrived = all_of(diary, CloudArrived)
    assert arrived[0][0] == pytest.approx(0.3)
    assert arrived[0][1] == CloudArrived(0, 1)
    assert arrived[1][0] - arrived[0][0] == pytest.approx(0.02)
    passes = [told for _, told in all_of(diary, DevicePassed) if isinstance(told, DevicePassed)]
    # Prompt and answer are fed once each, in order; the last token need not be fed any more.
    assert [p.num_fed for p in passes] == list(accumulate(p.num_tokens for p in passes))
    assert passes[-1].num_fed == len(PROMPT) + 40 - 1
    assert all(p.seconds > 0 for p in passes)
    [(claimed_s, claimed)] = all_of(diary, Claimed)
    assert claimed == Claimed(run.outcome.handoff_position or -1)
    handed = run.outcome.shown[run.outcome.handoff_position or -1]
    assert claimed_s <= handed.at_s


def test_a_watched_answer_is_shown_at_the_same_instants() -> None:
    assert carry(told=[]).outcome.shown == carry().outcome.shown


def test_a_slow_watcher_holds_no_token_back() -> None:
    slowly = carry(told=[], reads_s=3.0).outcome
    assert slowly.shown == carry().outcome.shown
    assert slowly.finish_reason == "stop"


def test_a_watcher_sees_both_sides_fail() -> None:
    diary = list[Happened]()
    carry(Script(cut_after=5, cut_streams=99), told=diary)
    errors = [told for _, told in all_of(diary, CloudFailed) if isinstance(told, CloudFailed)]
    assert errors
    assert isinstance(errors[0].error, CloudUnavailable)
    assert not errors[0].final
    diary = list[Happened]()
    run = carry(told=diary, fail_at=220)
    check_whole(run)
    [(_, failed)] = all_of(diary, DeviceFailed)
    assert isinstance(failed, DeviceFailed)
    assert isinstance(failed.error, EngineError)
    assert len(all_of(diary, ClaimReturned)) == len(all_of(diary, Claimed)) == 1
