"""The schemas of `pd-bench schemas`: each can be used, ends, and is judged by another library."""

import json
import random

import jsonschema_rs
import numpy as np
import pytest

from pd_bench.exactness.cut_link import CutLink
from pd_bench.exactness.schemas import read_schemas, valid
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.constraint import json_schema_constraint
from pd_core.grammar.grammars import Grammars
from tests.scripted_cloud import ScriptedCloud

EOS = 1
TOKENIZER = random_tiny_tokenizer()
GRAMMARS = Grammars(TOKENIZER, TOKENIZER.vocab_size, [EOS])
SCHEMAS = read_schemas()


@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_to_a_schema_end_and_are_valid(name: str) -> None:
    jsonschema_rs.validator_for(SCHEMAS[name])
    chance = random.Random(name)
    matcher, made = GRAMMARS.matcher(json_schema_constraint(SCHEMAS[name])), list[int]()
    while EOS not in made:
        bits = np.unpackbits(matcher.mask(made).view(np.uint8), bitorder="little")
        made.append(int(chance.choice(np.flatnonzero(bits).tolist())))
        assert len(made) < 600
    assert valid(SCHEMAS[name], TOKENIZER.decode(made))


def test_a_judge_that_always_agrees_would_be_seen() -> None:
    person = SCHEMAS["person"]
    right = {"name": "Ada", "age": 36, "email": "a@b.org"}
    assert valid(person, json.dumps(right))
    assert not valid(person, json.dumps({**right, "age": 121}))
    assert not valid(person, json.dumps({**right, "more": 1}))
    assert not valid(person, json.dumps(right)[:-1])


def test_a_link_is_cut_behind_as_many_tokens_as_asked() -> None:
    link = CutLink(ScriptedCloud(vocab_size=10, eos=1))
    link.cut_after(5)
    assert [link.passes(3), link.cut.is_set()] == [3, False]
    assert [link.passes(3), link.cut.is_set()] == [2, True]
    link.cut_after(None)
    assert [link.passes(99), link.cut.is_set()] == [99, False]
    link.cut_after(0)
    assert link.cut.is_set()
