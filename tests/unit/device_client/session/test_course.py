"""What is said of an answer's makers is true at every token, whatever cloud and device do."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.generation import Fingerprints, Load, TokenLogprobs
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.happenings import (
    Claimed,
    CloudArrived,
    CloudFailed,
    Happened,
    Replanned,
)
from pd_device_client.contract.outcome import Origin
from pd_device_client.contract.ports import LocalSequence
from pd_device_client.planning.planner import PACE_TOLERANCE, Plan, is_below_pace
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.session import Session
from pd_device_client.session.sides import Sides
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud
from tests.wrapped_engine import WrappedEngine

PROMPT = tuple(i % 40 for i in range(120))


class CountingEngine(WrappedEngine):
    """An emulated engine that counts the tokens it makes."""

    def __init__(self, profile: SpeedProfile) -> None:
        super().__init__(EmulatedDeviceEngine(profile, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS]))
        self.made = 0
        self.open_sequences = 0

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        self.open_sequences += 1
        assert self.open_sequences == 1, "one answer holds one turn"
        return _CountingSequence(self, self.inner.open(sampling))


class _CountingSequence:
    def __init__(self, engine: CountingEngine, sequence: LocalSequence) -> None:
        self._engine = engine
        self._sequence = sequence

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        made = await self._sequence.feed(token_ids, sample_position, positions)
        self._engine.made += made is not None
        return made

    def close(self) -> None:
        self._engine.open_sequences -= 1
        self._sequence.close()


def alone(length: int) -> list[int]:
    """The answer as one engine alone makes it."""
    state, ids = RollingHash(VOCAB_SIZE, [EOS], PROMPT), list[int]()
    for position in range(length):
        ids.append(state.next_token(position, SamplingParams(forced_length=length)))
        state.extend(ids[-1:])
    return ids


class Teller:
    """The last thing told: the plan, then each revision."""

    def __init__(self, plan: Plan) -> None:
        self.mode = plan.mode
        self._cloud_tokens = plan.cloud_tokens
        self._in_turns = plan.takes_turns

    def told(self, revision: Replanned) -> None:
        self.mode, self._cloud_tokens = revision.mode, revision.cloud_tokens
        self._in_turns = False

    def says(self, position: int, origin: Origin) -> bool:
        """Whether it was said that this side makes this position."""
        either = self._in_turns and position >= self._cloud_tokens
        return either or self.maker(position) is origin

    def maker(self, position: int) -> Origin:
        if self.mode is Mode.PD_DEVICE:
            return Origin.CLOUD if position < self._cloud_tokens else Origin.DEVICE
        return Origin.CLOUD if self.mode is Mode.CLOUD_ONLY else Origin.DEVICE


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(
    script=st.builds(
        Script,
        first_token_s=st.floats(0.02, 2.0),
        step_s=st.floats(0.005, 0.12),
        stall_after=st.none() | st.integers(0, 60),
        stall_s=st.floats(0.1, 4.0) | st.just(1e6),
        stall_streams=st.integers(1, 3),
        cut_after=st.none() | st.integers(0, 60),
        cut_streams=st.integers(1, 4),
    ),
    decode_s=st.floats(0.01, 0.25),
    rate=st.floats(100, 2000),
    pace_s=st.floats(0.02, 0.12),
    cloud_tokens=st.integers(1, 40),
    length=st.integers(1, 120),
    expected_tokens=st.integers(1, 120),
    mode=st.sampled_from([Mode.PD_DEVICE, Mode.PD_DEVICE, Mode.CLOUD_ONLY]),
    turn_tokens=st.sampled_from([0, 0, 6, 16, 32]),
)
@example(  # the cloud stalls once, and is then as fast as before: seven times the device
    script=Script(first_token_s=1.1, step_s=0.024, stall_after=57, stall_s=3.5, stall_streams=2),
    decode_s=0.16,
    rate=343.0,
    pace_s=0.086,
    cloud_tokens=15,
    length=73,
    expected_tokens=81,
    mode=Mode.CLOUD_ONLY,
    turn_tokens=0,
)
@example(  # a device hardly slower than the cloud need not wait long for it
    script=Script(first_token_s=0.125, step_s=0.109375, stall_after=21, stall_streams=2),
    decode_s=0.125,
    rate=100.0,
    pace_s=0.0625,
    cloud_tokens=1,
    length=43,
    expected_tokens=1,
    mode=Mode.CLOUD_ONLY,
    turn_tokens=0,
)
def test_what_is_said_is_true_of_every_token(
    script: Script,
    decode_s: float,
    rate: float,
    pace_s: float,
    cloud_tokens: int,
    length: int,
    expected_tokens: int,
    mode: Mode,
    turn_tokens: int,
) -> None:
    cloud = ScriptedCloud(script)
    profile = SpeedProfile("any", "a test", 1 / rate, decode_s)
    engine = CountingEngine(profile)
    plan = Plan(mode, 130 if mode is Mode.CLOUD_ONLY else cloud_tokens, pace_s)
    if mode is Mode.PD_DEVICE:
        plan = replace(plan, turn_tokens=turn_tokens)
    told = list[Happened]()

    async def main() -> Session:
        load = Load(decode_step_s=script.step_s)
        sides = Sides(
            link=cloud,
            engine=engine,
            cloud_estimate=CloudEstimate(0.01, load, step_s=script.step_s),
            device_estimate=DeviceEstimate(profile),
            fingerprints=Fingerprints(),
            eos_token_ids=(EOS,),
        )
        sampling = SamplingParams(forced_length=length)
        ask = Ask("r", PROMPT, 130, sampling, mode=mode, watched=True)
        session = Session(ask, plan, sides, expected_tokens=expected_tokens)
        async for happened in session.run():
            if isinstance(happened, Happened):
                told.append(happened)
        return session

    session = run_virtual(main())
    outcome = session.outcome
    assert outcome.token_ids == alone(length), "a token was lost, doubled or changed"
    assert outcome.unused_tokens == cloud.made + engine.made - length, "waste is misreported"

    says, revisions = Teller(plan), [what for _, what in told if isinstance(what, Replanned)]
    for shown in outcome.shown:
        while revisions and revisions[0].position <= shown.position:
            says.told(revisions.pop(0))
        assert says.says(shown.position, shown.origin), "something untrue was said"
    if session.handoff.mode is Mode.CLOUD_ONLY and any(isinstance(w, Replanned) for _, w in told):
        last = [what for _, what in told if isinstance(what, Replanned)][-1]
        assert last.why in outcome.notes, "the last thing said stays"

    if is_below_pace(decode_s, pace_s) and script.step_s * PACE_TOLERANCE < decode_s:
        check_claims(told, plan)


def check_claims(told: list[Happened], plan: Plan) -> None:
    """A device too slow for the pace claims the cloud's rest only if the cloud fails or stalls.

    So it is where the cloud is the faster side; of two that are hardly apart, either may go on.
    """
    says, heard_s, failed = Teller(plan), 0.0, False
    for at_s, what in told:
        if isinstance(what, Replanned):
            says.told(what)
        elif isinstance(what, CloudArrived):
            heard_s, failed = at_s, False
        elif isinstance(what, CloudFailed):
            failed = True
        elif isinstance(what, Claimed) and says.mode is Mode.CLOUD_ONLY:
            assert failed or at_s - heard_s >= 0.5 - 1e-9, "the cloud was well"
