"""The local engine under a form: the plain loop's tokens, at any handoff, guesses or none."""

import asyncio
import random
from dataclasses import replace

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import InvalidConstraint
from pd_core.sampling_params import SamplingParams
from pd_device_client.engine.torch_engine import TorchLocalEngine
from tests.forms import FORMS, SCHEMAS, fits
from tests.seeds import seeds
from tests.server_harness import plain_loop
from tests.unit.device_client.engine.test_guessed_tokens import answer, guessing

MOST = 160


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_model("random-tiny")


def any_params(name: str, chance: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=chance.choice([0.0, 1.0, 1.0]),
        top_p=chance.choice([1.0, 0.9]),
        top_k=chance.choice([0, 40]),
        min_p=chance.choice([0.0, 0.05]),
        seed=chance.randrange(2**64),
        frequency_penalty=chance.choice([0.0, 0.5]),
        dry_multiplier=chance.choice([0.0, 0.3]),
        constraint=FORMS[name],
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, heavy=2))
@pytest.mark.parametrize("name", FORMS)
def test_every_handoff_gives_the_plain_loops_answer(
    name: str, seed: int, tiny: LoadedModel
) -> None:
    chance = random.Random(f"{name} {seed}")
    params, prompt = any_params(name, chance), [chance.randrange(8, 1000) for _ in range(20)]
    right = plain_loop(tiny, prompt, MOST, params)
    text = tiny.tokenizer.decode(right)
    if right[-1] in tiny.eos_token_ids and name in SCHEMAS:
        assert fits(SCHEMAS[name], text)
    for guesses in (0, 3):
        engine = guessing(tiny, guesses) if guesses else TorchLocalEngine(tiny, chunk_tokens=16)
        for handoff in (0, *sorted(chance.sample(range(len(right)), min(3, len(right))))):
            made = asyncio.run(
                answer(engine, prompt, params, right[:handoff], chance, length=len(right))
            )
            assert made[: len(right)] == right, f"handoff at {handoff}, {guesses} guesses"
        asyncio.run(engine.close())


def test_guesses_are_right_under_a_form(tiny: LoadedModel) -> None:
    params = SamplingParams(constraint=Constraint(ConstraintKind.REGEX, "(abcabc){30}"))
    engine = guessing(tiny, 3)
    right = plain_loop(tiny, [5], 40, params)
    made = asyncio.run(answer(engine, [5], params, [], random.Random(0), length=len(right)))
    assert made[: len(right)] == right
    assert engine.speculation.num_accepted > 5
    asyncio.run(engine.close())


async def test_a_form_that_cannot_be_used_is_a_typed_error(tiny: LoadedModel) -> None:
    engine = TorchLocalEngine(tiny)
    wrong = replace(SamplingParams(), constraint=Constraint(ConstraintKind.REGEX, "(a"))
    sequence = engine.open(wrong, (5, 6))
    with pytest.raises(InvalidConstraint, match="regex cannot be used"):
        await sequence.feed([5, 6], 0)
    sequence.close()
    await engine.close()
