"""A model's own sampling, from generation_config.json."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from pd_core.checkpoints.sampling_defaults import AskedSampling, SamplingDefaults
from pd_core.errors import InvalidSamplingParams, ModelError
from pd_core.sampling_params import SamplingParams
from pd_core.store.model_names import DEFAULT_MODEL, model_directory


def _read(folder: Path, content: object) -> SamplingDefaults:
    (folder / "generation_config.json").write_text(json.dumps(content))
    return SamplingDefaults.from_directory(folder)


def test_a_model_that_says_nothing_is_greedy(tmp_path: Path) -> None:
    assert SamplingDefaults.from_directory(tmp_path) == SamplingDefaults(0.0, 0, 1.0)
    assert _read(tmp_path, {"eos_token_id": 3}) == SamplingDefaults()


def test_without_do_sample_a_temperature_means_nothing(tmp_path: Path) -> None:
    assert _read(tmp_path, {"temperature": 0.6}) == SamplingDefaults()
    assert _read(tmp_path, {"temperature": 0.6, "do_sample": False}) == SamplingDefaults()


def test_what_is_given_holds_and_the_rest_keeps_everything(tmp_path: Path) -> None:
    content = {"do_sample": True, "top_k": 20, "top_p": 0.8}
    assert _read(tmp_path, content) == SamplingDefaults(1.0, 20, 0.8)


def test_repetition_costs_are_read_too(tmp_path: Path) -> None:
    content = {"do_sample": True, "dry_multiplier": 0.8, "dry_allowed_length": 8}
    params = _read(tmp_path, content).params(seed=1, dry_base=1.5)
    assert (params.dry_multiplier, params.dry_base, params.dry_allowed_length) == (0.8, 1.5, 8)


def test_penalties_hold_for_a_greedy_model_too(tmp_path: Path) -> None:
    content = {"repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    params = _read(tmp_path, content).params(seed=1)
    assert params == SamplingParams(
        seed=1, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=-0.5
    )


def test_a_file_as_it_is_found_in_the_wild_is_followed(tmp_path: Path) -> None:
    content = {
        "bos_token_id": 151643,
        "do_sample": True,
        "min_p": 0.05,
        "repetition_penalty": 1.05,
        "temperature": 0.7,
        "top_k": -1,
        "top_p": 0.8,
        "typical_p": None,
        "transformers_version": "4.37.0",
    }
    params = _read(tmp_path, content).params(seed=2)
    assert params == SamplingParams(0.7, 0, 0.8, seed=2, min_p=0.05, repetition_penalty=1.05)


@pytest.mark.parametrize("value", [{"top_p": 0}, {"temperature": 0}, {"temperature": 1e-9}])
def test_the_most_likely_token_has_several_names(tmp_path: Path, value: dict[str, float]) -> None:
    greedy = SamplingDefaults().params(seed=0)
    assert _read(tmp_path, {"do_sample": True, **value}).params(seed=0) == greedy
    assert SamplingDefaults(1.0).params(seed=0, **value) == greedy  # type: ignore[arg-type]


def test_what_has_no_effect_is_logged_and_what_changes_nothing_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    _read(tmp_path, {"do_sample": True, "num_beams": 1, "typical_p": 1.0, "min_length": 0})
    _read(tmp_path, {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "bad_words_ids": []})
    assert caplog.messages == []
    _read(tmp_path, {"do_sample": True, "num_beams": 4, "no_repeat_ngram_size": 3})
    _read(tmp_path, {"temperature": 0.9})
    assert caplog.messages == [
        "generation_config.json: no_repeat_ngram_size, num_beams have no effect here",
        "generation_config.json: temperature has no effect without do_sample",
    ]


def test_every_default_can_be_asked_for() -> None:
    names = {field.name for field in fields(SamplingDefaults)}
    assert names == set(AskedSampling.__annotations__)
    never_a_default = {"seed", "ignore_eos", "forced_length", "constraint", "logprobs"}
    never_a_default |= {"logit_bias", "min_tokens", "late_token_ids"}
    assert names | never_a_default == {field.name for field in fields(SamplingParams)}


def test_the_shipped_model_says_how_it_reads_best() -> None:
    assert SamplingDefaults.from_directory(model_directory(DEFAULT_MODEL)) == SamplingDefaults(
        0.6, 0, 0.9, dry_multiplier=0.8, dry_base=1.3, dry_allowed_length=8
    )


def test_a_request_goes_before_the_model() -> None:
    params = SamplingDefaults(0.7, 20, 0.9).params(seed=5, temperature=0.0, top_p=1.0)
    assert (params.temperature, params.top_k, params.top_p, params.seed) == (0.0, 20, 1.0, 5)
    with pytest.raises(InvalidSamplingParams, match="top_p"):
        SamplingDefaults().params(seed=0, top_p=2.0)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"do_sample": True, "temperature": "hot"}, "temperature"),
        ({"do_sample": True, "temperature": True}, "temperature"),
        ({"do_sample": True, "temperature": -1}, "temperature"),
        ({"do_sample": True, "top_p": 2}, "top_p"),
        ({"do_sample": True, "top_k": -3}, "top_k"),
        ({"do_sample": True, "min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": "1.1"}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ([], "JSON object"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, content: object, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        _read(tmp_path, content)
