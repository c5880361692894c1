"""A reading speed as a gap: counted by hand, and in a whole session."""

import itertools
from contextlib import aclosing
from dataclasses import replace

import pytest

from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.contract.outcome import Shown
from pd_device_client.session.reading_pace import ReadingPace, usual_gap_s
from tests.scripted_cloud import Script, ScriptedCloud


def test_usual_text_has_1_3_tokens_a_word() -> None:
    assert usual_gap_s(240) == pytest.approx(0.25 / 1.3)


@pytest.mark.parametrize(
    ("tokens", "per_word"),
    [(["a ", "word "], 1), ([" long", "er", "ish"], 3), ([" x", "", " y", ""], 2)],
)
def test_the_gap_comes_to_the_answers_own_tokens_per_word(tokens: list[str], per_word: int) -> None:
    reading = ReadingPace(240)
    for text in tokens * 2000:
        reading.add(text)
    assert reading.gap_s == pytest.approx(0.25 / per_word, rel=0.01)


def test_text_without_white_space_is_not_shown_at_once() -> None:
    reading = ReadingPace(240)
    for _ in range(5000):
        reading.add("字")
    assert reading.gap_s == pytest.approx(0.25 / 6, rel=0.02)


class _EveryThirdBeginsAWord:
    """A detokeniser that makes words of three tokens."""

    stopped, stop_string = False, None

    def __init__(self) -> None:
        self._count = itertools.count()

    def push(self, token_id: int) -> list[tuple[int, str]]:
        n = next(self._count)
        return [(n, " abc" if n % 3 == 0 else "de")]

    def flush(self) -> list[tuple[int, str]]:
        return []


class _EveryTokenIsAWord(_EveryThirdBeginsAWord):
    def push(self, token_id: int) -> list[tuple[int, str]]:
        return [(next(self._count), " word")]


def _gaps(
    promise: Promise, num_tokens: int, words: type[_EveryThirdBeginsAWord] = _EveryThirdBeginsAWord
) -> list[float]:
    async def answer() -> list[Shown]:
        client = DeviceClient(
            cloud=ScriptedCloud(Script(first_token_s=0.1, step_s=0.001)),
            engine=None,
            pace_s=0.05,
            text=lambda *_, **__: words(),
        )
        await client.start()
        ask = Ask(
            "read",
            (1, 2, 3),
            num_tokens,
            SamplingParams(forced_length=num_tokens),
            mode=Mode.CLOUD_ONLY,
            promise=promise,
        )
        session = client.session(ask)
        async with aclosing(session.run()) as told:
            shown = [token async for token in told if isinstance(token, Shown)]
        await client.close()
        return shown

    shown = run_virtual(answer())
    return [b.at_s - a.at_s for a, b in itertools.pairwise(shown)]


def test_a_session_shows_words_at_the_readers_speed() -> None:
    gaps = _gaps(Promise(usual_gap_s(240), reading_wpm=240), 400)
    assert gaps[0] == pytest.approx(0.25 / 1.3, rel=0.05)
    assert gaps[-1] == pytest.approx(0.25 / 3, rel=0.1)
    assert all(b <= a * 1.05 for a, b in itertools.pairwise(gaps))  # it changes smoothly


def test_a_reading_speed_breaks_no_promised_gap() -> None:
    asked = Promise(usual_gap_s(240), reading_wpm=240)
    # A word a token is read more slowly than usual text.
    assert max(_gaps(asked, 200, _EveryTokenIsAWord)) > 0.24
    promised = replace(asked, largest_gap_s=0.2)
    assert max(_gaps(promised, 200, _EveryTokenIsAWord)) == pytest.approx(0.2)


def test_a_stretched_pace_stays_stretched() -> None:
    reading = ReadingPace(1000, shortest_s=0.08)
    for _ in range(100):
        reading.add("de")
    assert reading.gap_s == 0.08


def test_without_one_the_pace_stays() -> None:
    assert _gaps(Promise(0.2), 20) == pytest.approx([0.2] * 19)
