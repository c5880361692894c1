"""Which sides take part, in every combination of what may be wrong, against the rules in turn."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from pd_core.constraint import json_object_constraint
from pd_core.errors import (
    CloudUnavailable,
    FingerprintMismatch,
    InvalidConstraint,
    InvalidRequest,
    InvalidSamplingParams,
    PdError,
)
from pd_core.generation import Fingerprints, Limits, Load, ModelCard, ServerInfo
from pd_core.needs import Need
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.cloud_watch import CloudWatch
from pd_device_client.client.handshake import Handshake
from pd_device_client.client.side_choice import choose_sides, room_tokens
from pd_device_client.cloud.openai.services import LLAMA_SERVER, OLLAMA, VLLM
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.cloud_reason import CloudReason

CARD = ModelCard("d", "torch", Fingerprints("t", "c", "w", "n"), 100, (1,), 1000)
INFO = ServerInfo("v", replace(CARD, name="m"), Limits(500, 4, 4), Load())
CHAT = ({"role": "user", "content": "hello"},)
GONE = CloudUnavailable("gone")
WAYS = [*itertools.product((True, False), ("whole", "no card", "left alone"), ("", "w", "t"))]


def watch(has_link: bool, state: str, differs: str, cloud_room: int = 1000) -> CloudWatch:
    info = replace(INFO, model=replace(INFO.model, max_context_tokens=cloud_room))
    told = SimpleNamespace(
        link=object() if has_link else None,
        info=None if state == "no card" or not has_link else info,
        error=GONE if state == "no card" else None,
        left_alone=state == "left alone",
        handshake=Handshake("they differ" if differs else "", differs * (differs == "t"), "x"),
    )
    return cast(CloudWatch, told)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("has_link", "state", "differs"), WAYS)
@pytest.mark.parametrize("has_engine", [True, False])
@pytest.mark.parametrize(("cloud_room", "device_room"), [*itertools.product((1000, 10), repeat=2)])
def test_every_case(
    mode: Mode,
    has_link: bool,
    state: str,
    differs: str,
    has_engine: bool,
    cloud_room: int,
    device_room: int,
) -> None:
    cloud = watch(has_link, state, differs, cloud_room)
    engine = replace(CARD, max_context_tokens=device_room) if has_engine else None
    ask = Ask("r", (1,) * 20, 5, mode=mode)
    uses_cloud, uses_device, notes = has_link, has_engine, list[str]()
    failure: type[PdError] | None = None
    if mode is Mode.DEVICE_ONLY:
        uses_cloud = False
        failure = None if has_engine else InvalidRequest
    if uses_cloud and cloud.info is None:
        uses_cloud = False
        notes.append("the device goes on alone: gone")
    elif uses_cloud and has_engine and state == "left alone":
        uses_cloud = False
        notes.append("the device goes on alone: the cloud failed several times in a row")
    if uses_cloud and has_engine and differs:
        notes.append("they differ")
        if mode is not Mode.CLOUD_ONLY:
            uses_cloud = False
        elif differs == "t":
            failure = FingerprintMismatch
        else:
            uses_device = False
    crowded = []
    if uses_cloud and cloud_room == 10:
        crowded.append("the cloud's context of 10")
        uses_cloud = False
    if uses_device and device_room == 10:
        crowded.append("the local model's context of 10")
        uses_device = False
    if failure is None and not uses_cloud and not uses_device:
        failure = PdError if crowded or cloud.error is not None else None
    if failure is not None:
        with pytest.raises(failure) as raised:
            choose_sides(ask, cloud, engine)
        if failure is PdError:
            assert (crowded[0] if crowded else "gone") in str(raised.value)
        return
    choice = choose_sides(ask, cloud, engine)
    assert (choice.cloud, choice.device) == (uses_cloud, uses_device)
    assert len(choice.notes) == len(notes) + len(crowded)
    assert list(choice.notes[: len(notes)]) == notes
    assert all(word in note for word, note in zip(crowded, choice.notes[len(notes) :], strict=True))


@pytest.mark.parametrize(
    ("mode", "tokens"),
    [(Mode.DEVICE_ONLY, 980), (Mode.CLOUD_ONLY, 500), (Mode.PD_DEVICE, 500)],
)
def test_room_is_what_every_side_of_the_mode_has(mode: Mode, tokens: int) -> None:
    assert room_tokens(20, mode, watch(True, "whole", ""), CARD) == tokens
    assert room_tokens(2000, mode, watch(True, "whole", ""), CARD) == -1000


def test_an_older_cloud_is_not_asked_for_what_it_would_skip() -> None:
    cloud = watch(True, "whole", "")
    assert cloud.info is not None
    cloud.info = replace(cloud.info, api_version=1)
    plain = Ask("r", (1,), 5, SamplingParams(0.5, 7, 0.9, dry_multiplier=1.0))
    assert choose_sides(plain, cloud, CARD).cloud
    penalised = replace(plain, sampling=replace(plain.sampling, presence_penalty=0.5))
    choice = choose_sides(penalised, cloud, CARD)
    assert (choice.cloud, choice.device) == (False, True)
    assert "older version" in choice.notes[0]
    with pytest.raises(InvalidSamplingParams, match="lacks some of min_p, penalties"):
        choose_sides(penalised, cloud, None)
    cloud.info = replace(cloud.info, api_version=2)
    assert choose_sides(penalised, cloud, CARD).cloud
    biased = replace(plain, sampling=SamplingParams(logit_bias=((1, 5.0),)))
    assert not choose_sides(biased, cloud, CARD).cloud


@pytest.mark.parametrize(
    ("sampling", "messages", "words"),
    [
        (SamplingParams(logprobs=2), CHAT, "logprobs"),
        (SamplingParams(min_tokens=2), CHAT, "min_tokens"),
        (SamplingParams(logit_bias=((1, 5.0),)), CHAT, "logit_bias"),
        (SamplingParams(constraint=json_object_constraint()), CHAT, "an answer of a given form"),
        (SamplingParams(), (), "a prompt, or functions"),
        (SamplingParams(min_tokens=2), (), "min_tokens, a prompt, or functions"),
    ],
)
def test_what_a_cloud_of_texts_lacks_is_known_before_it_is_asked(
    sampling: SamplingParams, messages: tuple[dict[str, str], ...], words: str
) -> None:
    cloud = watch(True, "whole", "")
    engine = replace(CARD, logprobs=True, grammar_library="g-1")
    assert cloud.info is not None
    cloud.info = replace(cloud.info, lacks=OLLAMA.lacks)
    ask = Ask("r", (1,), 5, sampling, messages=messages)
    choice = choose_sides(ask, cloud, engine)
    assert (choice.cloud, choice.device) == (False, True)
    assert choice.cloud_reason is CloudReason.UNABLE
    assert f"is not asked for {words}" in choice.notes[0]
    with pytest.raises(InvalidRequest, match="is not asked for"):
        choose_sides(replace(ask, mode=Mode.CLOUD_ONLY), cloud, None)
    assert choose_sides(Ask("r", (1,), 5, messages=CHAT), cloud, engine).cloud


def test_a_cloud_that_takes_ids_takes_prompts_and_biases_by_them() -> None:
    assert Need.PROMPT in VLLM.as_text().lacks
    assert {Need.PROMPT, Need.BIAS}.isdisjoint(VLLM.lacks)
    assert Need.BIAS in LLAMA_SERVER.lacks


def test_a_side_that_gives_no_logprobs_is_not_asked_for_them() -> None:
    cloud, telling = watch(True, "whole", ""), replace(CARD, logprobs=True)
    asked = Ask("r", (1,), 5, SamplingParams(logprobs=2))
    assert cloud.info is not None
    choice = choose_sides(asked, cloud, telling)
    assert (choice.cloud, choice.device) == (False, True)
    assert "the cloud's engine" in choice.notes[0]
    for device in (CARD, None):
        with pytest.raises(InvalidRequest, match="logprobs are asked for"):
            choose_sides(asked, cloud, device)
    cloud.info = replace(cloud.info, model=replace(cloud.info.model, logprobs=True))
    choice = choose_sides(asked, cloud, CARD)
    assert (choice.cloud, choice.device) == (True, False)
    assert choose_sides(asked, cloud, telling).notes == ()


@pytest.mark.parametrize(
    ("theirs", "ours", "cloud_in", "device_in", "words"),
    [
        ("g-1", "g-1", True, True, ""),
        ("g-2", "g-1", False, True, "compiles forms with g-2, this device with g-1"),
        ("", "g-1", False, True, "the cloud holds no answer to a form"),
        ("g-1", "", True, False, "the local engine (d) holds no answer to a form"),
    ],
)
def test_a_form_is_for_sides_that_compile_it_alike(
    theirs: str, ours: str, cloud_in: bool, device_in: bool, words: str
) -> None:
    cloud, engine = watch(True, "whole", ""), replace(CARD, grammar_library=ours)
    assert cloud.info is not None
    cloud.info = replace(cloud.info, model=replace(cloud.info.model, grammar_library=theirs))
    ask = Ask("r", (1,), 5, SamplingParams(constraint=json_object_constraint()))
    choice = choose_sides(ask, cloud, engine)
    assert (choice.cloud, choice.device) == (cloud_in, device_in)
    assert any(words in note for note in choice.notes) or not words
    free = choose_sides(replace(ask, sampling=SamplingParams()), cloud, engine)
    assert (free.cloud, free.device) == (True, True)


def test_a_form_that_no_side_compiles_is_refused() -> None:
    ask = Ask("r", (1,), 5, SamplingParams(constraint=json_object_constraint()))
    for engine in (CARD, None):
        with pytest.raises(InvalidConstraint, match="the cloud holds no answer to a form"):
            choose_sides(ask, watch(True, "whole", ""), engine)
