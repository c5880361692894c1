import dataclasses
from dataclasses import replace
from itertools import combinations
from typing import Any

from pd_core.constraint import Constraint, ConstraintKind, json_object_constraint
from pd_core.generation import (
    Fingerprints,
    Finished,
    FinishReason,
    RefinedPrompt,
    Start,
    TokenLogprobs,
    Tokens,
)
from pd_core.identity.stream_seal import StreamSeal, start_seal
from pd_core.sampling_params import SamplingParams

START = Start(
    "r/1",
    (5, 6, 7),
    9,
    SamplingParams(0.5, 7, 0.25, 2**64 - 1, True, 12, 0.5, 1.25, 9),
    (4, 5),
    2,
    0.5,
    Fingerprints("t", "c", "w", "n"),
    "s",
    1.5,
)


def _flips(value: Any) -> list[Any]:
    """The values that differ from this one in one bit."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value ^ 1 << bit for bit in range(32)]
        case tuple():
            flips = [
                (*value[:at], flipped, *value[at + 1 :])
                for at, one in enumerate(value)
                for flipped in _flips(one)
            ]
            return [*flips, value[1:], value[:-1]]
        case str():
            return [*(value[:-1] + chr(ord(value[-1]) ^ 1 << bit) for bit in range(7)), ""]
    return []


def test_every_changed_bit_of_a_start_changes_its_seal() -> None:
    full = replace(START, stop_token_ids=(8, 9))
    changed = [
        replace(full, **{field.name: flipped})
        for field in dataclasses.fields(full)
        for flipped in _flips(getattr(full, field.name))
        # The messages are for clouds that take text, and never on this wire.
        if field.name not in {"api_version", "protected_ranges", "messages"}
    ]
    changed += [
        replace(full, sampling=replace(full.sampling, seed=full.sampling.seed ^ 1 << bit))
        for bit in range(64)
    ]
    kinds = (ConstraintKind.JSON_SCHEMA, ConstraintKind.REGEX, ConstraintKind.LARK)
    forms = [Constraint(kind, source) for kind in kinds for source in ("a", "b")]
    forms.append(json_object_constraint())
    free = replace(full.sampling, ignore_eos=False, forced_length=None)
    changed += [replace(full, sampling=replace(free, constraint=form)) for form in forms]
    others: dict[str, Any] = {"temperature": 1.0, "top_p": 0.5, "ignore_eos": False}
    others |= {"logit_bias": ((1, 0.5),), "min_tokens": 1, "late_token_ids": (1,), "logprobs": 0}
    changed += [
        replace(full, sampling=replace(full.sampling, **{name: value}))
        for name, value in others.items()
    ]
    changed += [
        replace(full, fingerprints=replace(full.fingerprints, **{name: "x"}))
        for name in ("tokenizer", "chat_template", "weights", "numerics_id")
    ]
    assert len(changed) > 300
    assert start_seal(full) not in {start_seal(start) for start in changed}


def test_what_is_not_on_this_wire_changes_no_seal() -> None:
    """A chat of the API carries its messages for clouds that take text; a pd-server gets none."""
    chat = replace(START, messages=({"role": "user", "content": "What?"},))
    assert start_seal(chat) == start_seal(START)


def test_a_token_that_moves_between_prompt_and_prefix_changes_the_seal() -> None:
    first = Start("r", (1, 2), 9, committed_token_ids=(3,))
    second = Start("r", (1,), 9, committed_token_ids=(2, 3))
    assert start_seal(first) != start_seal(second)


def test_what_the_wire_rounds_or_writes_otherwise_changes_nothing() -> None:
    assert start_seal(replace(START, useful_for_s=1.5 + 1e-12)) == start_seal(START)
    whole, real = SamplingParams(temperature=1, top_p=1), SamplingParams(temperature=1.0)
    assert start_seal(Start("r", (1,), 9, whole)) == start_seal(Start("r", (1,), 9, real))


def test_the_seal_of_a_release_stays() -> None:
    """Another number means that devices and servers of different versions take each other's
    messages for changed ones."""
    assert start_seal(START) == 0xAB8B9CC92B436556
    seal = StreamSeal(START)
    assert seal.after_tokens(Tokens(4, (8, 9))) == 0x10583659493D6043
    assert seal.after_finished(Finished(FinishReason.LENGTH, 2)) == 0xB937E4AF6A472D1B


def _tokens_seal(first_position: int, *token_ids: int) -> int:
    return StreamSeal(START).after_tokens(Tokens(first_position, token_ids))


def test_how_tokens_are_put_into_messages_changes_nothing() -> None:
    seal = StreamSeal(START)
    for position, token_id in enumerate((8, 9, 10), 4):
        last = seal.after_tokens(Tokens(position, (token_id,)))
    assert last == _tokens_seal(4, 8, 9, 10)


def test_every_changed_bit_of_tokens_changes_all_later_seals() -> None:
    flips = [Tokens(4 ^ 1 << bit, (8, 9)) for bit in range(32)]
    flips += [Tokens(4, (8 ^ 1 << bit, 9)) for bit in range(32)]
    flips += [Tokens(4, (8, 9 ^ 1 << bit)) for bit in range(32)]
    flips += [Tokens(4, (8,)), Tokens(5, (9,)), Tokens(4, (9, 8))]
    seals = [StreamSeal(START) for _ in flips]
    right = StreamSeal(START)
    now = [right.after_tokens(Tokens(4, (8, 9)))]
    now += [seal.after_tokens(flip) for seal, flip in zip(seals, flips, strict=True)]
    later = [seal.after_tokens(Tokens(6, (1, 2, 3))) for seal in (right, *seals)]
    assert now[0] not in now[1:]
    assert later[0] not in later[1:]


def test_every_changed_part_of_logprobs_changes_all_later_seals() -> None:
    told = TokenLogprobs(-0.5, (8, 3), (-0.5, -2.0))
    others = [
        (),
        (told, told),
        (TokenLogprobs(-0.5),),
        (told._replace(logprob=-0.25),),
        (told._replace(top_ids=(8, 2)),),
        (told._replace(top_logprobs=(-0.5, -2.0000002)),),
        (TokenLogprobs(-0.5, (3, 8), (-2.0, -0.5)),),
    ]
    streams = [StreamSeal(START) for _ in range(len(others) + 1)]
    for stream, logprobs in zip(streams, [(told,), *others], strict=True):
        stream.after_tokens(Tokens(4, (8,), logprobs))
    seals = [stream.after_tokens(Tokens(5, (9,))) for stream in streams]
    assert len(set(seals)) == len(seals)


def test_the_bias_of_each_id_is_sealed() -> None:
    biases = [((1, 0.5),), ((1, -0.5),), ((2, 0.5),), ((1, 0.5), (2, 0.5)), ()]
    seals = [start_seal(Start("r", (1,), 9, SamplingParams(logit_bias=b))) for b in biases]
    assert len(set(seals)) == len(seals)


def test_the_end_is_sealed_too() -> None:
    ends = [Finished(reason, n) for reason in list(FinishReason)[:3] for n in (0, 1, 2, 3)]
    seals = [StreamSeal(START).after_finished(end) for end in ends]
    assert all(a != b for a, b in combinations(seals, 2))
    one = Finished(FinishReason.STOP, 1)
    assert replace(one, queue_s=1.0) != one
    assert StreamSeal(START).after_finished(replace(one, queue_s=1.0)) == seals[1]


def test_a_refined_prompt_is_sealed_and_changes_all_later_seals() -> None:
    ranges = [((0, 3), (5, 7)), ((0, 3), (5, 6)), ((0, 2), (5, 7)), ((0, 3),), ()]
    streams = [StreamSeal(START) for _ in ranges]
    seals = [s.after_refined(RefinedPrompt(r)) for s, r in zip(streams, ranges, strict=True)]
    plain = StreamSeal(START)
    seals += [stream.after_tokens(Tokens(4, (8, 9))) for stream in (*streams, plain)]
    assert len(set(seals)) == len(seals)


def test_what_an_older_server_does_not_know_is_not_sealed() -> None:
    assert start_seal(replace(START, protected_ranges=((1, 2),))) == start_seal(START)


def test_the_chat_behind_a_prompt_is_not_sealed_since_it_never_goes_to_a_pd_server() -> None:
    chat = ({"role": "user", "content": "Hi"},)
    assert start_seal(replace(START, messages=chat)) == start_seal(START)
