"""What guesses gain: each number of them is measured beside none, and must change no answer."""

import pytest

from pd_bench.overhead import guesses as module
from pd_bench.overhead.guess_settings import GuessSettings
from pd_bench.overhead.guesses import guesses_table, measure_guesses
from pd_core.errors import ConfigError
from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.engine.torch_engine import TorchLocalEngine

SETTINGS = GuessSettings(RANDOM_TINY, prompt_tokens=64, tokens=12, rounds=2, speculate=(3,))


async def test_every_answer_is_made_with_and_without_guesses() -> None:
    found = await measure_guesses(SETTINGS)
    assert [(each.prompt, each.sampling, each.speculate) for each in found] == [
        (prompt, sampling, n)
        for prompt in ("a page, begun again", "a page", "a line")
        for sampling in ("greedy", "temperature 1")
        for n in (0, 3)
    ]
    assert all(each.times == 1 and each.drafted == 0 for each in found if each.speculate == 0)
    assert all(each.tokens_per_s > 0 and each.times > 0 for each in found)
    assert sum(each.drafted for each in found) > 0
    assert guesses_table(found, SETTINGS).row_count == len(found)


async def test_a_changed_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module._answer

    async def wrong(engine: TorchLocalEngine, *rest: object) -> tuple[list[int], float]:
        made, seconds = await right(engine, *rest)  # type: ignore[arg-type]
        return ([*made, 0] if engine.speculation.may_draft else made), seconds

    monkeypatch.setattr(module, "_answer", wrong)
    with pytest.raises(ConfigError, match="3 guesses a pass changed an answer"):
        await measure_guesses(SETTINGS)


async def test_a_prompt_longer_than_the_page_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is room for"):
        await measure_guesses(GuessSettings(RANDOM_TINY, prompt_tokens=99_999))


@pytest.mark.parametrize("speculate", [(), (33,)])
def test_numbers_of_guesses_out_of_range_are_refused(speculate: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="from 1 to 32"):
        GuessSettings(speculate=speculate)
