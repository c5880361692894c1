"""The engine interface over a real vLLM in this process, beside the torch engine.

One engine for all: a process can hold only one vLLM at a time.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pd_core.constraint import Constraint, ConstraintKind, json_schema_constraint
from pd_core.errors import EngineError
from pd_core.generation import Finished, FinishReason, TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import Engine, TokensMade
from pd_server.engine.live_request import LiveRequest
from pd_server.vllm_engine.backend import Output
from pd_server.vllm_engine.engine import VllmEngine
from tests.server_harness import prompt_of
from tests.vllm.checkpoints import write_checkpoint
from tests.vllm.engines import answers, blocks_in_use, request, run, torch_engine, vllm_engine

GREEDY = SamplingParams()
SAMPLED = SamplingParams(temperature=0.8, seed=2**64 - 3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skip-v1")
    write_checkpoint(path, skip_v1=True)
    return path


@pytest.fixture(scope="module")
def shared_engine(directory: Path) -> Iterator[VllmEngine]:
    with vllm_engine(directory) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: VllmEngine) -> Iterator[VllmEngine]:
    """The module's engine, which every test leaves empty."""
    yield shared_engine
    assert not shared_engine.has_unfinished()
    assert blocks_in_use(shared_engine) == 0


def test_the_card(engine: VllmEngine, directory: Path) -> None:
    torch_card = torch_engine(directory).card
    card = engine.card
    assert (card.engine, torch_card.engine) == ("vllm", "torch")
    for name in ("tokenizer", "chat_template", "weights"):
        assert getattr(card.fingerprints, name) == getattr(torch_card.fingerprints, name)
    assert card.fingerprints.numerics_id.startswith("float32/vllm/")
    assert card.fingerprints.numerics_id != torch_card.fingerprints.numerics_id
    assert card.eos_token_ids == torch_card.eos_token_ids
    assert card.vocab_size == torch_card.vocab_size
    assert card.max_context_tokens == torch_card.max_context_tokens


def test_answers_of_a_form_are_the_torch_engine_s(engine: VllmEngine, directory: Path) -> None:
    schema = {"type": "array", "items": {"enum": [1, "ü", None]}, "minItems": 1, "maxItems": 3}
    forms = [
        None,
        json_schema_constraint(schema),
        Constraint(ConstraintKind.REGEX, "[0-9]{3}-(yes|no)"),
        json_schema_constraint({"type": "array", "items": {"type": "boolean"}, "maxItems": 4}),
    ]
    requests = [
        request(
            i, prompt_of(20 + i, i), 40, SamplingParams(temperature=1.0, seed=i, constraint=form)
        )
        for i, form in enumerate(forms)
    ]
    found, expected = answers(engine, requests), answers(torch_engine(directory), requests)
    assert found == expected
    assert engine.card.grammar_library == torch_engine(directory).card.grammar_library != ""


def test_seeded_sampling_is_the_torch_engine_s(engine: VllmEngine, directory: Path) -> None:
    parameters = [
        GREEDY,
        SAMPLED,
        SamplingParams(temperature=1.0, seed=1, top_k=20),
        SamplingParams(temperature=1.3, seed=2, top_p=0.8),
        SamplingParams(temperature=0.7, seed=3, top_k=50, top_p=0.9, ignore_eos=True),
        SamplingParams(temperature=1.0, seed=4, forced_length=7),
        SamplingParams(temperature=0.5, seed=5, dry_multiplier=2.0, dry_allowed_length=1),
        SamplingParams(
            temperature=0.9,
            seed=6,
            min_p=0.05,
            repetition_penalty=1.5,
            presence_penalty=1.0,
            frequency_penalty=0.5,
        ),
        SamplingParams(
            temperature=1.0,
            seed=7,
            logit_bias=((5, 100.0), (9, -100.0), (40, 3.5)),
            min_tokens=9,
            late_token_ids=(5,),
        ),
    ]
    requests = [
        request(i, prompt_of(length, i), 5 + 12, parameters[i], first_position=5)
        for i, length in enumerate((3, 31, 64, 150, 129, 20, 90, 40, 35))
    ]
    made = answers(engine, requests)
    assert made == answers(torch_engine(directory), requests)
    assert 5 not in made[8][:4]
    assert made[8][4:] == [5] * (len(made[8]) - 4), "from position 9 on it is the likeliest by far"
    assert made[5][-1] in engine.card.eos_token_ids
    assert len(made[5]) == 2, "position 6 is the last of a forced length of 7"


def test_logprobs_are_the_torch_engine_s_up_to_rounding(
    engine: VllmEngine, directory: Path
) -> None:
    sampling = [replace(SAMPLED, logprobs=5), replace(SAMPLED, top_k=3, logprobs=0), SAMPLED]
    requests = [request(i, prompt_of(40 + i, i), 12, one) for i, one in enumerate(sampling)]
    told, expected = (logprobs(one, requests) for one in (engine, torch_engine(directory)))
    assert told.keys() == expected.keys() == {0, 1}
    for request_id, theirs in told.items():
        assert len(theirs) == 12
        for mine, other in zip(expected[request_id], theirs, strict=True):
            assert other.logprob == pytest.approx(mine.logprob, abs=1e-3)
            assert other.top_logprobs == pytest.approx(mine.top_logprobs, abs=1e-3)
            assert len(other.top_ids) == len(mine.top_ids) == sampling[request_id].logprobs


def logprobs(engine: Engine, requests: list[LiveRequest]) -> dict[int, list[TokenLogprobs]]:
    """Run requests together and return what was told of each one's tokens."""
    told: dict[int, list[TokenLogprobs]] = {}
    for one in requests:
        engine.add_request(replace(one, token_ids=one.token_ids[: one.num_prefix_tokens]))
    while engine.has_unfinished():
        for event in engine.step():
            if isinstance(event, TokensMade) and event.logprobs:
                assert len(event.logprobs) == len(event.token_ids)
                told.setdefault(event.request_id, []).extend(event.logprobs)
    return told


def test_extend_goes_on_as_if_the_limit_had_been_higher(engine: VllmEngine) -> None:
    whole = answers(engine, [request(1, prompt_of(70), 20, SAMPLED)])[1]
    made: dict[int, list[int]] = {}
    engine.add_request(request(2, prompt_of(70), 6, SAMPLED))
    while not made:
        run_once(engine, made)
    engine.extend(2, 20)
    ends = run(engine, made)
    assert made[2] == whole
    assert isinstance(ends[2], Finished)
    assert ends[2].tokens_generated == len(whole)


def test_a_committed_prefix_goes_on_where_it_ended(engine: VllmEngine) -> None:
    whole = answers(engine, [request(1, prompt_of(50), 12, SAMPLED)])[1]
    rest = request(
        2, [*prompt_of(50), *whole[:5]], 12, SAMPLED, num_committed_tokens=5, first_position=5
    )
    assert answers(engine, [rest])[2] == whole[5:]


def test_stop_and_abort_free_the_blocks_within_a_step(engine: VllmEngine) -> None:
    for i in range(4):
        engine.add_request(request(i, prompt_of(100, i), 200, GREEDY))
    made: dict[int, list[int]] = {}
    while len(made) < 2:
        run_once(engine, made)
    assert blocks_in_use(engine) > 0
    for i in range(3):
        engine.abort(i)
    engine.stop(3)
    assert blocks_in_use(engine) == 0
    ends = run(engine, made)
    assert list(ends) == [3]
    assert isinstance(ends[3], Finished)
    assert ends[3].reason is FinishReason.CANCELLED


def test_what_is_aborted_or_too_late_while_queued_never_runs(engine: VllmEngine) -> None:
    for i in range(4):
        engine.add_request(request(i, prompt_of(100, i), 200, GREEDY))
    engine.add_request(request(4, prompt_of(100, 4), 5, GREEDY))
    engine.add_request(request(5, prompt_of(100, 5), 5, GREEDY, useful_for_s=0.0))
    made: dict[int, list[int]] = {}
    while len(made) < 4:
        run_once(engine, made)
    assert (engine.load().num_running, engine.load().num_waiting) == (4, 1)
    held = blocks_in_use(engine)
    engine.abort(4)
    assert blocks_in_use(engine) == held, "it had none"
    assert engine.load().num_waiting == 0
    for i in range(4):
        engine.abort(i)
    run(engine, made)
    assert sorted(made) == [0, 1, 2, 3]


def test_a_prompt_longer_than_the_context_fails_alone(engine: VllmEngine) -> None:
    too_long = engine.card.max_context_tokens + 1
    engine.add_request(request(1, prompt_of(too_long), 5, GREEDY))
    engine.add_request(request(2, prompt_of(30), 5, GREEDY))
    made: dict[int, list[int]] = {}
    ends = run(engine, made)
    assert isinstance(ends[1], EngineError)
    assert "vLLM refused the request" in str(ends[1])
    assert isinstance(ends[2], Finished)
    assert len(made[2]) == 5


def test_salts_share_nothing(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: list[Output] = []
    poll = engine.backend.poll

    def watched() -> list[Output]:
        outputs.extend(new := poll())
        return new

    monkeypatch.setattr(engine.backend, "poll", watched)
    for i, salt in enumerate(("mine", "mine", "theirs")):
        answers(engine, [request(i, prompt_of(96, 77), 1, GREEDY, cache_salt=salt)])
    assert [output.num_cached_tokens for output in outputs if output.token_ids] == [0, 64, 0]


def run_once(engine: VllmEngine, made: dict[int, list[int]]) -> None:
    """One step."""
    for event in engine.step():
        if isinstance(event, TokensMade):
            made.setdefault(event.request_id, []).extend(event.token_ids)
