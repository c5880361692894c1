"""A session with a refined prompt: used, late, wrong, never asked for; on a virtual clock."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.errors import CloudUnavailable
from pd_core.generation import Fingerprints, Load, TokenLogprobs
from pd_core.refinement import Ranges
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.happenings import DevicePassed, Happened, PromptRefined
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import LocalSequence
from pd_device_client.planning.planner import Plan
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.kept_prompt import KeptPrompt
from pd_device_client.session.session import Session
from pd_device_client.session.sides import Sides
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud
from tests.wrapped_engine import WrappedEngine

PROMPT = tuple(i % 40 for i in range(2000))
PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)
CHUNK = 128
HALF: Ranges = ((0, 10), (200, 800), (1200, 1600), (1990, 2000))
LENGTH = 60
# 0.2 s after the start the second pass runs, of positions 0 to 127: 0.32 s a pass.


def expected() -> list[int]:
    state, ids = RollingHash(VOCAB_SIZE, [EOS], PROMPT), list[int]()
    for position in range(LENGTH):
        ids.append(state.next_token(position, SamplingParams(forced_length=LENGTH)))
        state.extend(ids[-1:])
    return ids


class RecordingEngine(WrappedEngine):
    """Notes the positions that are fed."""

    def __init__(self) -> None:
        super().__init__(
            EmulatedDeviceEngine(
                PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS], chunk_tokens=CHUNK
            )
        )
        self.fed: list[list[int]] = []  # of each sequence

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        self.fed.append([])
        return _Recording(self.inner.open(sampling, prompt_token_ids), self.fed[-1])


class _Recording:
    def __init__(self, sequence: LocalSequence, fed: list[int]) -> None:
        self._sequence = sequence
        self._fed = fed

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        first = self._fed[-1] + 1 if self._fed else 0
        at = list(range(first, first + len(token_ids))) if positions is None else list(positions)
        assert len(at) == len(token_ids)
        in_prompt = [i for i in at if i < len(PROMPT)]
        assert [PROMPT[i] for i in in_prompt] == list(token_ids[: len(in_prompt)])
        self._fed.extend(at)
        return await self._sequence.feed(token_ids, sample_position, positions)

    def close(self) -> None:
        self._sequence.close()


@dataclass
class Run:
    outcome: Outcome
    cloud: ScriptedCloud
    fed: list[list[int]]
    told: list[Happened] = field(default_factory=list)

    @property
    def refined(self) -> list[int]:
        return [what.num_left_out for _, what in self.told if isinstance(what, PromptRefined)]

    @property
    def ready_s(self) -> float:
        """When the prompt was read."""
        to_read = len(PROMPT) - self.outcome.left_out_tokens
        passes = [(at, w.num_fed) for at, w in self.told if isinstance(w, DevicePassed)]
        return next(at for at, num_fed in passes if num_fed >= to_read)


def carry(
    script: Script,
    keep_ratio: float = 0.5,
    protected: Ranges = (),
    cloud_tokens: int = 40,
    wait_s: float = 0.0,
) -> Run:
    """Carry one answer; the cloud makes it all unless the device is ready before."""

    async def main() -> Run:
        cloud, engine = ScriptedCloud(script), RecordingEngine()
        sides = Sides(
            link=cloud,
            engine=engine,
            cloud_estimate=CloudEstimate(0.01, Load(decode_step_s=0.02), step_s=0.02),
            device_estimate=DeviceEstimate(PROFILE, CHUNK),
            fingerprints=Fingerprints(),
            eos_token_ids=(EOS,),
        )
        sampling = SamplingParams(forced_length=LENGTH)
        ask = Ask("r", PROMPT, 200, sampling, watched=True)
        plan = Plan(Mode.PD_DEVICE, cloud_tokens, 0.2, keep_ratio)
        session = Session(ask, plan, sides, expected_tokens=LENGTH, protected=protected)
        told = []
        other = sides.turns.join()
        if wait_s:
            await other.begin()
            asyncio.get_running_loop().call_later(wait_s, other.end)
        else:
            other.end()
        async with aclosing(session.run()) as answer:
            async for shown in answer:
                if isinstance(shown, Happened):
                    told.append(shown)
        return Run(session.outcome, cloud, engine.fed, told)

    return run_virtual(main())


def check_whole(run: Run) -> None:
    assert run.outcome.token_ids == expected()
    assert run.outcome.finish_reason == "stop"


def test_the_device_keeps_what_it_has_read_and_goes_on_with_what_is_kept() -> None:
    run, full = carry(Script(refined=[HALF])), carry(Script(refined=[HALF]), keep_ratio=1.0)
    check_whole(run)
    kept = [i for first, end in HALF for i in range(first, end)]
    read = [*range(CHUNK), *(i for i in kept if i >= CHUNK)]  # the pass that runs is not lost
    assert run.fed[0][: len(read)] == read
    left_out = len(PROMPT) - len(read)
    assert run.refined == [left_out]
    assert run.outcome.left_out_tokens == left_out
    assert run.outcome.exactness == "refined"
    assert run.outcome.handoff_position == full.outcome.handoff_position == 40
    assert run.ready_s < 0.65 * full.ready_s
    assert full.outcome.exactness == "identical"
    assert full.fed[0][: len(PROMPT)] == list(range(len(PROMPT)))


def test_the_positions_of_an_answer_do_not_change() -> None:
    run = carry(Script(refined=[HALF]))
    assert run.fed[0][-1] in (len(PROMPT) + LENGTH - 1, len(PROMPT) + LENGTH - 2)
    rest = run.fed[0][run.fed[0].index(len(PROMPT) - 1) :]
    assert rest == list(range(len(PROMPT) - 1, run.fed[0][-1] + 1))


@pytest.mark.parametrize(
    "ranges",
    [
        (),
        ((0, 1000), (900, 2000)),  # overlapping
        ((1000, 2000), (0, 500)),  # out of order
        ((0, 1500), (1600, 2001)),  # outside
        ((0, 1999),),  # without the last
        ((0, 10), (1000, 2000)),  # without what is protected
        ((0, 100), (1900, 2000)),  # less than asked for
    ],
)
def test_a_refined_prompt_of_no_use_is_left_and_said_once(ranges: Ranges) -> None:
    run = carry(Script(refined=[ranges]), protected=((50, 60),))
    check_whole(run)
    assert run.refined == []
    assert run.fed[0][: len(PROMPT)] == list(range(len(PROMPT)))
    assert run.outcome.exactness == "identical"
    [note] = run.outcome.notes
    assert "refined prompt is of no use" in note
    assert note.endswith("the full prompt is used")


def test_one_that_comes_when_all_is_read_changes_nothing() -> None:
    run = carry(Script(refined=[HALF], refined_s=6.0, first_token_s=6.1))
    check_whole(run)
    assert (run.refined, run.outcome.notes) == ([], [])
    assert run.outcome.exactness == "identical"
    assert run.outcome.left_out_tokens == 0


def test_one_that_comes_before_the_devices_turn_is_used_then() -> None:
    run = carry(Script(refined=[HALF]), wait_s=1.0)
    check_whole(run)
    kept = [i for first, end in HALF for i in range(first, end)]
    assert run.fed[0][: len(kept)] == kept
    assert run.refined == [len(PROMPT) - len(kept)]


def test_a_stream_that_breaks_is_asked_again_and_a_second_answer_is_not_needed() -> None:
    script = Script(refined=[HALF], cut_after=0)
    run = carry(script)
    check_whole(run)
    assert [start.keep_ratio for start in run.cloud.starts][:2] == [0.5, 1.0]
    assert len(run.refined) == 1
    refused = Script(refined=[HALF], refuse=lambda n: CloudUnavailable("no") if n == 1 else None)
    run = carry(refused)
    check_whole(run)
    assert [start.keep_ratio for start in run.cloud.starts][:2] == [0.5, 0.5]
    assert len(run.refined) == 1


def test_nothing_is_asked_for_at_a_ratio_of_one() -> None:
    run = carry(Script(refined=[HALF]), keep_ratio=1.0, protected=((0, 5),))
    assert {start.keep_ratio for start in run.cloud.starts} == {1.0}
    assert {start.protected_ranges for start in run.cloud.starts} == {()}


def test_a_cloud_that_knows_no_refinement_changes_nothing() -> None:
    run = carry(Script())
    check_whole(run)
    assert run.outcome.exactness == "identical"


ranges = st.lists(st.integers(0, 60), max_size=8).map(
    lambda edges: tuple(
        (a, b) for a, b in zip(sorted(set(edges))[::2], sorted(set(edges))[1::2], strict=False)
    )
)


@given(
    st.integers(1, 50),
    ranges,
    st.integers(0, 60),
    st.lists(st.integers(1, 20), min_size=1),
    st.integers(0, 20),
)
def test_a_kept_prompt_is_read_in_order_whatever_the_passes(
    num_tokens: int, kept: Ranges, num_read: int, sizes: list[int], num_following: int
) -> None:
    ids, following = list(range(100, 100 + num_tokens)), list(range(500, 500 + num_following))
    before = tuple((a, min(b, num_tokens - 1)) for a, b in kept if a < num_tokens - 1)
    kept = (*before, (num_tokens - 1, num_tokens))
    prompt = KeptPrompt(ids)
    num_read = min(num_read, num_tokens)
    left_out = prompt.refine(kept, num_read)
    want = [i for i in range(num_tokens) if i < num_read or any(a <= i < b for a, b in kept)]
    assert left_out == num_tokens - len(want) == prompt.num_left_out
    want += range(num_tokens, num_tokens + num_following)
    got_ids, got, first = list[int](), list[int](), 0
    for size in (*sizes, *[7] * 20):
        reading = prompt.reading(first, size, following)
        at = reading.positions
        if at is None:
            start = got[-1] + 1 if got else 0
            at = list(range(start, start + len(reading.token_ids)))
        got += at
        got_ids += reading.token_ids
        first += len(reading.token_ids)
    assert got == want
    assert got_ids == [(ids + following)[i] for i in want]
