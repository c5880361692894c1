"""The sampler inside vLLM beside the torch engine's, with stand-ins for the classes it needs."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.grammar.grammars import Grammars
from pd_core.sampling.history import History
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from tests.forms import FORMS

EOS = [1]
NUM_TOKEN_IDS = 40
SAMPLINGS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=3, top_k=20, top_p=0.9),
    SamplingParams(temperature=0.8, dry_multiplier=2.0, dry_allowed_length=1),
    SamplingParams(repetition_penalty=2.0),
    SamplingParams(
        temperature=0.9,
        seed=7,
        min_p=0.02,
        repetition_penalty=1.5,
        presence_penalty=1.0,
        frequency_penalty=0.5,
    ),
]


def _put(rows: dict[int, Any], update: Any, new_row: Callable[..., Any]) -> bool:
    """What vLLM's function of this name does with the requests that came."""
    for index, params, prompt, output in update:
        rows[index] = new_row(params, prompt, output)
    return bool(update)


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    config, logits = ModuleType("vllm.config"), ModuleType("vllm.v1.sample.logits_processor")
    vars(config)["VllmConfig"] = object
    vars(logits).update(BatchUpdate=object, LogitsProcessor=object, process_dict_updates=_put)
    for name in ("vllm", "vllm.v1", "vllm.v1.sample"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, config.__name__, config)
    monkeypatch.setitem(sys.modules, logits.__name__, logits)
    name = "pd_server.vllm_plugin.seeded_sampler"
    monkeypatch.delitem(sys.modules, name, raising=False)
    from pd_server.vllm_plugin.seeded_sampler import SeededSampler

    yield SeededSampler(None, torch.device("cpu"), False)
    sys.modules.pop(name, None)


def _params(sampling: SamplingParams, first_position: int, sampler: str = "model") -> Any:
    """What `request_inputs` gives vLLM."""
    ours = {
        "sampling": asdict(sampling),
        "first_position": first_position,
        "eos_token_ids": EOS,
        "num_token_ids": NUM_TOKEN_IDS,
        "sampler": sampler,
    }
    return SimpleNamespace(extra_args={"pd": ours})


def _logits(step: int) -> torch.Tensor:
    """One step's logits; the last columns belong to no token."""
    made = torch.randn(len(SAMPLINGS), 48, generator=torch.Generator().manual_seed(step))
    made[:, NUM_TOKEN_IDS:] = 100.0
    return made


@pytest.mark.parametrize("first", [0, 3])
def test_every_row_is_chosen_as_by_the_sampler_itself(sampler: Any, first: int) -> None:
    """With first above 0 the prompt's last tokens are of the response: a continuation."""
    prompts = [[5 + i, 6, 7, 6, 7, 8][: 4 + i] for i in range(len(SAMPLINGS))]
    outputs: list[list[int]] = [[] for _ in SAMPLINGS]
    came = [
        (i, _params(sampling, first), prompts[i], outputs[i])
        for i, sampling in enumerate(SAMPLINGS)
    ]
    sampler.update_state([*came, (99, SimpleNamespace(extra_args=None), [1], [])])
    del sampler._rows[99]
    for step in range(12):
        logits = _logits(step)
        if step % 3 == 0:  # a step whose tokens vLLM drops, as in prefill, changes nothing
            sampler.apply(_logits(step))
        chosen = sampler.apply(logits.clone()).argmax(1).tolist()
        for i, sampling in enumerate(SAMPLINGS):
            token_ids = [*prompts[i], *outputs[i]]
            history = History(token_ids, len(prompts[i]) - first)
            row = logits[i : i + 1, :NUM_TOKEN_IDS]
            expected = sample(row, [sampling], [first + len(outputs[i])], EOS, [history])
            assert [chosen[i]] == expected, (step, sampling)
            outputs[i].append(chosen[i])


def test_the_rolling_hash_takes_each_token_once(sampler: Any) -> None:
    sampling, output = SamplingParams(seed=4), list[int]()
    sampler.update_state([(0, _params(sampling, 0, "rolling-hash"), [5, 6], output)])
    expected = RollingHash(NUM_TOKEN_IDS, EOS, [5, 6])
    for position in range(6):
        token_id = int(sampler.apply(_logits(position)[:1]).argmax())
        assert token_id == expected.next_token(position, sampling)
        expected.extend([token_id])
        output.append(token_id)


@pytest.mark.parametrize("first", [0, 4])
def test_a_row_with_a_form_is_chosen_as_by_the_sampler_itself(sampler: Any, first: int) -> None:
    tokenizer = random_tiny_tokenizer()
    width = tokenizer.vocab_size
    grammars = sampler._forms._grammars = Grammars(tokenizer, width, EOS)
    sampling = SamplingParams(temperature=1.0, seed=5, constraint=FORMS["person"])
    whole = list[int]()
    made = torch.Generator().manual_seed(7)
    rows = [torch.randn(2, width, generator=made) for _ in range(60)]
    for row in rows:
        mask = grammars.matcher(FORMS["person"]).mask(whole)
        whole += sample(row[:1], [sampling], [len(whole)], EOS, None, [mask])
        if whole[-1] in EOS:
            break
    output, free = list[int](), list[int]()
    came = []
    for index, params, out in ((0, sampling, output), (1, SamplingParams(), free)):
        asked = _params(params, first)
        asked.extra_args["pd"]["num_token_ids"] = width
        came.append((index, asked, [8, 9, *whole[:first]], out))
    sampler.update_state(came)
    for row in rows[first : len(whole)]:
        chosen = sampler.apply(row.clone()).argmax(1).tolist()
        assert chosen[1] == int(row[1].argmax())
        output.append(chosen[0])
    assert [*whole[:first], *output] == whole


def test_where_nothing_fits_the_row_ends_and_vllm_lives(sampler: Any) -> None:
    tokenizer = random_tiny_tokenizer()
    sampler._forms._grammars = Grammars(tokenizer, tokenizer.vocab_size, EOS)
    asked = _params(SamplingParams(constraint=FORMS["regex"]), 0)
    asked.extra_args["pd"]["num_token_ids"] = tokenizer.vocab_size
    sampler.update_state([(0, asked, [8, 9], [77, 78])])  # an answer that does not fit
    logits = torch.zeros(1, tokenizer.vocab_size)
    assert sampler.apply(logits).argmax(1).tolist() == EOS
