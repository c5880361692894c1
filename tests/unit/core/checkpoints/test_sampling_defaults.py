"""A model's own sampling, from generation_config.json."""

import json
from pathlib import Path

import pytest

from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.errors import InvalidSamplingParams, ModelError
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
        ([], "JSON object"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, content: object, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        _read(tmp_path, content)
