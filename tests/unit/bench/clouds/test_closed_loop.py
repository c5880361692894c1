"""A closed loop on a virtual clock: how many are in flight, and what counts as a failure."""

import pytest

from pd_bench.clouds.closed_loop import CloudAnswer, run_closed_loop
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.replay.workload import Work
from pd_bench.results.result import output_sha256
from pd_core.errors import QueueFull
from pd_core.generation import Start
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud

FIRST_S, STEP_S = 0.3, 0.02


def _request(index: int, length: int, limit: int) -> tuple[Work, Start]:
    work = Work(index, index + 1, 0.0, (index, 7), length)
    sampling = SamplingParams(seed=3, forced_length=length)
    return work, Start(str(index), work.prompt_token_ids, limit, sampling)


def _run(
    cloud: ScriptedCloud, requests: list[tuple[Work, Start]], in_flight: int, timeout_s: float = 60
) -> tuple[list[CloudAnswer], int]:
    """Answers, and the most streams that were open at once."""
    most = 0

    def on_answer(_: CloudAnswer) -> None:
        nonlocal most
        most = max(most, cloud.open_streams)

    answers = run_virtual(
        run_closed_loop(
            cloud, requests, in_flight=in_flight, timeout_s=timeout_s, on_answer=on_answer
        )
    )
    return answers, most


def test_slots_are_kept_full_and_all_rows_are_asked() -> None:
    cloud = ScriptedCloud(Script(first_token_s=FIRST_S, step_s=STEP_S))
    answers, most = _run(cloud, [_request(i, 11, 11) for i in range(7)], in_flight=3)
    assert [start.request_id for start in cloud.starts] == [str(i) for i in range(7)]
    assert most == 2, "as one ends, the others go on"
    assert cloud.open_streams == 0
    assert {a.error for a in answers} == {None}
    one_s = FIRST_S + 10 * STEP_S
    # Three at a time: three rounds, the last of one.
    assert sorted(a.ended_at_s for a in answers) == pytest.approx(
        [one_s] * 3 + [2 * one_s] * 3 + [3 * one_s]
    )
    assert [a.ttft_s for a in answers] == pytest.approx([FIRST_S] * 7), "from its own start"


def test_an_answer_s_digest_is_of_its_tokens() -> None:
    request = _request(0, 6, 6)
    ((answer,), _) = _run(ScriptedCloud(), [request], in_flight=1)
    model = RollingHash(VOCAB_SIZE, [EOS], request[0].prompt_token_ids)
    expected: list[int] = []
    for position in range(6):
        expected.append(model.next_token(position, request[1].sampling))
        model.extend(expected[-1:])
    assert answer.num_tokens == 6
    assert answer.output_sha256 == output_sha256(expected)


def test_the_limit_or_the_row_is_a_whole_answer() -> None:
    requests = [_request(0, 30, 14), _request(1, 9, 14)]
    answers, _ = _run(ScriptedCloud(), requests, in_flight=2)
    assert {(a.id, a.num_tokens, a.error) for a in answers} == {(0, 14, None), (1, 9, None)}


def test_failures_are_answers_and_the_rest_goes_on() -> None:
    refused = ScriptedCloud(Script(refuse=lambda n: QueueFull("full") if n == 2 else None))
    answers, _ = _run(refused, [_request(i, 5, 5) for i in range(4)], in_flight=1)
    errors = {a.id: a.error for a in answers}
    assert errors == {0: None, 1: "QueueFull: full", 2: None, 3: None}
    assert [a.ttft_s is None for a in sorted(answers, key=lambda a: a.id)] == [False, True] + [
        False
    ] * 2

    stalled = ScriptedCloud(Script(stall_after=3))
    ((answer,), _) = _run(stalled, [_request(0, 5, 5)], in_flight=1, timeout_s=9.0)
    assert answer.error == "TimeoutError: no end within 9 s"
    assert answer.num_tokens == 3
    assert answer.ended_at_s == pytest.approx(9.0)
    assert stalled.open_streams == 0, "the stream is broken off"

    wrong = _request(0, 5, 5)[0], _request(0, 4, 5)[1]
    ((answer,), _) = _run(ScriptedCloud(), [wrong], in_flight=1)
    assert answer.error == "the answer has 4 tokens instead of 5"
