"""The cloud's engine under forms: some rows of a batch have one, and each gets its own answer."""

import random
import threading
from typing import Any

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import InvalidConstraint
from pd_core.generation import FinishReason
from pd_core.grammar import grammars as module
from pd_core.grammar.compiled import compiled
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import RequestFailed, RequestFinished, TokensMade
from pd_server.engine.live_request import LiveRequest
from pd_server.torch_engine.engine import TorchEngine
from tests.forms import FORMS
from tests.server_harness import plain_loop

MOST = 60
WRONG = Constraint(ConstraintKind.REGEX, "(a")


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_model("random-tiny")


def request(
    number: int, prompt: list[int], params: SamplingParams, committed: list[int] | None = None
) -> LiveRequest:
    done = committed or []
    return LiveRequest(number, [*prompt, *done], len(done), len(done), MOST, params, 0.0)


def run(engine: TorchEngine, requests: list[LiveRequest]) -> dict[int, list[int] | Exception]:
    """Run requests together to their ends."""
    made: dict[int, Any] = {r.request_id: list[int]() for r in requests}
    for one in requests:
        engine.add_request(one)
    while engine.has_unfinished():
        for event in engine.step():
            if isinstance(event, TokensMade):
                made[event.request_id] += event.token_ids
            elif isinstance(event, RequestFailed):
                made[event.request_id] = event.error
            elif isinstance(event, RequestFinished):
                assert event.finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("guesses", [0, 3])
def test_each_row_of_a_batch_gets_the_answer_it_gets_alone(guesses: int, tiny: LoadedModel) -> None:
    chance = random.Random(guesses)
    engine = TorchEngine(tiny, 8, 64, speculate=guesses)
    prompts = [[chance.randrange(8, 1000) for _ in range(chance.randint(1, 90))] for _ in range(9)]
    params = [
        SamplingParams(
            temperature=chance.choice([0.0, 1.0]),
            top_p=chance.choice([1.0, 0.9]),
            seed=number,
            repetition_penalty=chance.choice([1.0, 1.1]),
            constraint=chance.choice([None, *FORMS.values()]),
        )
        for number in range(9)
    ]
    right = [plain_loop(tiny, *each) for each in zip(prompts, [MOST] * 9, params, strict=True)]
    made = run(engine, [request(i, prompts[i], params[i]) for i in range(9)])
    assert [made[i] for i in range(9)] == right
    cuts = [chance.randrange(len(one)) for one in right]
    again = [request(20 + i, prompts[i], params[i], right[i][: cuts[i]]) for i in range(9)]
    made = run(engine, again)
    assert [made[20 + i] for i in range(9)] == [
        one[cut:] for one, cut in zip(right, cuts, strict=True)
    ]


def test_a_form_that_cannot_be_used_fails_its_own_request_and_no_step(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(tiny, 8, 64)
    alone = list[object]()
    runner = engine._runner
    real = runner._run_alone

    def counted(work: Any) -> Any:
        alone.append(work)
        return real(work)

    monkeypatch.setattr(runner, "_run_alone", counted)
    good = SamplingParams(constraint=FORMS["person"])
    made = run(
        engine,
        [
            request(0, [5, 6], good),
            request(1, [5, 7], SamplingParams(constraint=WRONG)),
            request(2, [5, 6], good, [9]),  # it goes on with what does not fit
        ],
    )
    assert made[0] == plain_loop(tiny, [5, 6], MOST, good)
    assert isinstance(made[1], InvalidConstraint)
    assert isinstance(made[2], InvalidConstraint)
    assert not alone


def test_all_but_the_last_token_is_computed_while_the_form_is_compiled(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def held(*args: Any) -> Any:
        assert go_on.wait(20)
        return compiled(*args)

    monkeypatch.setattr(module, "compiled", held)
    engine = TorchEngine(tiny, 4, 16)
    params, prompt = SamplingParams(constraint=FORMS["regex"]), list(range(10, 50))
    waits, other = request(0, prompt, params), request(1, [5, 6, 7], SamplingParams())
    engine.add_request(waits)
    engine.add_request(other)
    while other.num_generated_tokens < 10:  # the other's answer goes on meanwhile
        engine.step()
    assert waits.num_computed_tokens == len(prompt) - 1
    assert waits.num_generated_tokens == 0
    go_on.set()
    while engine.has_unfinished():
        engine.step()
    assert waits.token_ids[len(prompt) :] == plain_loop(tiny, prompt, MOST, params)


def test_an_engine_whose_tokens_are_no_models_takes_no_form(tiny: LoadedModel) -> None:
    assert TorchEngine(tiny, 2, 16).card.grammar_library.startswith("llguidance-")
    assert TorchEngine(tiny, 2, 16, "rolling-hash").card.grammar_library == ""
