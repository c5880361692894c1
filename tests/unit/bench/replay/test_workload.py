from dataclasses import replace

import pytest

from pd_bench.replay.workload import Workload
from pd_bench.results.result import CutRows
from pd_bench.traces.reader import TraceRow
from pd_core.errors import ConfigError
from pd_core.generation import Fingerprints, ModelCard

MODEL = ModelCard("m", "torch", Fingerprints(), 50, (1,), 100)
ROWS = [TraceRow(2, 0.0, 30, 10), TraceRow(3, 1.5, 80, 20), TraceRow(4, 2.0, 10, 99)]


def workload(
    max_prompt_tokens: int | None = None, max_output_tokens: int = 40, temperature: float = 0.0
) -> Workload:
    return Workload(
        MODEL,
        40,
        seed=3,
        temperature=temperature,
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
    )


def test_rows_are_cut_to_the_context_and_counted() -> None:
    load = workload()
    assert [len(w.prompt_token_ids) for w in load.works(ROWS)] == [30, 60, 10]
    assert [w.output_tokens for w in load.works(ROWS)] == [10, 20, 40]
    assert [(w.id, w.line, w.arrival_s) for w in load.works(ROWS)] == [
        (0, 2, 0.0),
        (1, 3, 1.5),
        (2, 4, 2.0),
    ]
    assert load.cut_rows(ROWS) == CutRows(
        rows=3,
        prompt=1,
        output=1,
        max_prompt_tokens=60,
        max_output_tokens=40,
        max_context_tokens=100,
    )


def test_the_length_of_a_row_goes_to_the_samplers_alone() -> None:
    load = workload(temperature=0.7)
    first, _, last = (load.request(w, "pd-device", "salt") for w in load.works(ROWS))
    assert (first.sampling.forced_length, last.sampling.forced_length) == (10, 40)
    assert first.max_tokens == last.max_tokens == 40  # the common cap: no row's own length
    assert (first.sampling.seed, first.sampling.temperature) == (3, 0.7)
    assert first.cache_salt == "salt"
    assert first.request_id != last.request_id


def test_schemes_send_the_same_prompts_and_sampling() -> None:
    load = workload()
    work = load.works(ROWS)[0]
    a, b = load.request(work, "cloud-only", "s"), load.request(work, "device-only", "s")
    assert (a.prompt_token_ids, a.sampling) == (b.prompt_token_ids, b.sampling)
    assert a.request_id != b.request_id


def test_the_warm_up_shares_no_prompt_with_a_row() -> None:
    load = workload()
    warm_up = load.warm_up().prompt_token_ids
    assert all(w.prompt_token_ids[:10] != warm_up[:10] for w in load.works(ROWS))


@pytest.mark.parametrize(
    ("max_prompt_tokens", "max_output_tokens", "why"),
    [
        (None, 41, "max-output-tokens is 41.*limit of 40"),
        (None, 0, "max-output-tokens is 0"),
        (61, 40, "max-prompt-tokens is 61.*between 1 and 60"),
        (0, 40, "max-prompt-tokens is 0"),
    ],
)
def test_impossible_cuts_are_refused(
    max_prompt_tokens: int | None, max_output_tokens: int, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        workload(max_prompt_tokens, max_output_tokens)


def test_a_model_without_an_end_cannot_be_forced_to_a_length() -> None:
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        Workload(
            replace(MODEL, eos_token_ids=()),
            40,
            seed=0,
            temperature=0.0,
            max_prompt_tokens=None,
            max_output_tokens=1,
        )
