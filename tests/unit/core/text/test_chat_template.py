"""Chat templates: what transformers makes of them, and bounds on what they may do."""

import datetime
import gc
import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import EngineError, InvalidRequest, ModelError
from pd_core.text.chat_template import ChatTemplate
from pd_core.text.template_bounds import MAX_CHARACTERS
from pd_core.text.tokenizer import Tokenizer

CHATML = """{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim ~ '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
BUSY = """{{ bos_token }}{% set ns = namespace(found=false, index=0) %}
{% for m in messages %}
    {% if m.role == 'system' and not loop.first %}
        {{ raise_exception('only the first may be the system') }}
    {% endif %}
    {% if m.role == 'user' %}{% set ns.index = ns.index + 1 %}{% endif %}
    {% if loop.index > 9 %}{% break %}{% endif %}
    {% generation %}{{ m.role | upper }} {{ ns.index }}: {{ m.content.strip().split(' ')[-1] }}
    {% endgeneration %}
    {{ m | tojson }} {{ m | tojson(indent=2) | indent(3) }} {{ m.keys() | join(', ') }}
{% endfor %}
{{ messages | map(attribute='role') | unique | list | length }} {{ eos_token is defined }}
{{ ', '.join(['a', 'b']) }} {{ 'aba'.replace('a', 'cc') }} {{ 'aba' | replace('b', '<') }}
{{ tools is none }} {{ 7 * 6 % 5 }} {{ 'ab' * 3 }} {{ messages[0].missing | default('none') }}
{{ {'a': [1, 'é', none, true]} | tojson }} {{ messages[:1] | selectattr('role') | list | count }}
"""
MESSAGES = [
    {"role": "system", "content": "  Be brief. "},
    {"role": "user", "content": "Wie geht es dir? <é>"},
]


@pytest.mark.parametrize("text", [CHATML, BUSY], ids=["chatml", "busy"])
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_renders_what_transformers_renders(text: str, add: bool) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    ours = ChatTemplate(text, tokens).render(MESSAGES, add_generation_prompt=add)
    theirs, _ = utils.render_jinja_template(
        [MESSAGES], chat_template=text, add_generation_prompt=add, **tokens
    )
    assert ours == theirs[0]
    assert "brief" in ours


def test_the_date_comes_from_the_caller() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}")
    noon = datetime.datetime(2024, 7, 26, 12)
    assert template.render([], now=lambda: noon) == "26 Jul 2024"


def test_a_template_may_refuse_messages() -> None:
    with pytest.raises(InvalidRequest, match="only the first may be the system"):
        ChatTemplate(BUSY).render(MESSAGES[::-1])
    with pytest.raises(InvalidRequest, match="fails on the messages"):
        ChatTemplate("{{ 1 / 0 }}").render([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for x in messages %}", "is broken: Unexpected end"),
        ("{{ 'a' | unknown }}", "is broken"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "is broken"),
        ("x" * 300_000, "characters"),
    ],
    ids=["open loop", "unknown filter", "deep", "long"],
)
def test_broken_templates_are_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ChatTemplate(text).check()


@pytest.mark.slow
def test_a_template_that_is_endless_to_compile_is_broken() -> None:
    """Operations between constants are computed when a template is compiled."""
    with pytest.raises(ModelError, match=r"is broken: it took more than 0\.5 s"):
        ChatTemplate("{{ 7 ** (7 ** 10) }}", time_limit_s=0.5).check()


GROW = (
    "{% set ns = namespace(s='abcdefgh') %}{% for i in range(60) %}{% set ns.s = X %}{% endfor %}"
)
HOSTILE = {
    "reaches python": "{{ messages.__class__.__mro__ }}",
    "reaches globals": "{{ raise_exception.__globals__['sys'] }}",
    "changes messages": "{{ messages.append(1) }}",
    "wide format": "{{ '%999999999d' % 1 }}",
    "wide centre": "{{ 'a'.center(10 * 1000 * 1000 * 1000) }}",
    "lipsum": "{{ lipsum(n=1000000) }}",
    "includes": "{% include 'secret' %}",
    "power": "{{ messages | length ** (9 ** (9 ** 9)) }}",
    "large number": GROW.replace("'abcdefgh'", "7").replace("X", "ns.s * ns.s"),
    "times": "{{ 'a' * 1000 * 1000 * 1000 * 1000 }}",
    "doubling plus": GROW.replace("X", "ns.s + ns.s"),
    "doubling tilde": GROW.replace("X", "ns.s ~ ns.s"),
    "doubling join": GROW.replace("X", "ns.s.join([ns.s, ns.s])"),
    "doubling join filter": GROW.replace("X", "[ns.s, ns.s] | join(ns.s)"),
    "doubling replace": GROW.replace("X", "ns.s.replace('a', ns.s)"),
    "doubling replace filter": GROW.replace("X", "ns.s | replace('', ns.s)"),
    "nested json": GROW.replace("'abcdefgh'", "[1]").replace("X", "[ns.s, ns.s]")
    + "{{ ns.s | tojson }}",
    "nested text": GROW.replace("'abcdefgh'", "[1]").replace("X", "[ns.s, ns.s]") + "{{ ns.s }}",
    "output": "{% for i in range(99999) %}{{ 'x' * 100 }}{% endfor %}",
    "long loop": "{% set r = range(99999) %}"
    "{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
    "captured text": "{% set s %}{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}"
    "{% endset %}",
    "text of a macro": "{% macro f(n) %}{% for i in range(99999) %}{{ n }}{% endfor %}"
    "{% endmacro %}{{ f(f('abcdefgh')) | length }}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
}


def processes() -> set[psutil.Process]:
    """This process's children, without those of templates that are no longer used."""
    gc.collect()
    return set(psutil.Process().children())


def started_since(held: set[psutil.Process]) -> set[psutil.Process]:
    """The children that came since; one that an earlier test left may end meanwhile."""
    return processes() - held


# One comparison of ten thousand million numbers.
LONG_IN_C = (
    "{% set a = [range(99999) | list] * 99999 %}{% set b = [range(99999) | list] * 99999 %}"
    "{{ a == b }}"
)
GROW_LIST = (
    "{% set ns = namespace(s=[1]) %}"
    "{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
)


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_templates_end_soon_and_small(case: str) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises((InvalidRequest, ModelError), match="chat template"):
        ChatTemplate(HOSTILE[case], time_limit_s=0.5).render(MESSAGES)
    assert psutil.Process().memory_info().rss - before < 256 << 20


def test_a_format_reaches_nothing_of_python() -> None:
    template = ChatTemplate("{{ '{0.__class__}'.format(1) }}{{ '%s' | format(messages) }}")
    assert template.render([]) == "[]"


@pytest.mark.slow
def test_an_operation_in_c_holds_up_nobody_and_is_ended() -> None:
    """It would hold the interpreter's lock if it ran in this process."""
    template = ChatTemplate(LONG_IN_C, time_limit_s=2.0)
    template.check()
    ended, waits = threading.Event(), list[float]()

    def tick() -> None:
        before = time.perf_counter()
        while not ended.wait(0.01):
            now = time.perf_counter()
            waits.append(now - before)
            before = now

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        with pytest.raises(InvalidRequest, match="took more than 2 s"):
            template.render(MESSAGES)
    finally:
        ended.set()
        ticking.join()
    assert len(waits) > 10, "others ran meanwhile"


@pytest.mark.slow
def test_memory_is_bounded_whatever_holds_it_and_is_given_back() -> None:
    held = processes()
    template = ChatTemplate(GROW_LIST)
    with pytest.raises(InvalidRequest, match="more than 512 MiB"):
        template.render(MESSAGES)
    assert not started_since(held), "the process that grew is not kept"
    small = ChatTemplate(CHATML)
    assert "brief" in small.render(MESSAGES)
    (kept,) = started_since(held)
    assert kept.memory_info().rss < 64 << 20


@pytest.mark.slow
def test_after_a_hostile_chat_the_next_one_is_answered() -> None:
    template = ChatTemplate(
        "{% if messages[0].content == 'x' %}" + LONG_IN_C + "{% endif %}ok", time_limit_s=4.0
    )
    assert template.render([{"role": "user", "content": "a"}]) == "ok"
    with pytest.raises(InvalidRequest, match="took more than"):
        template.render([{"role": "user", "content": "x"}])
    assert template.render([{"role": "user", "content": "a"}]) == "ok"


def test_its_process_is_kept_replaced_when_gone_and_ends_with_the_template() -> None:
    held = processes()
    template = ChatTemplate("{{ messages[0].content }}")
    assert not started_since(held), "none before it is needed"
    assert template.render([{"content": "a"}]) == "a"
    (first,) = started_since(held)
    assert template.render([{"content": "b \ud800"}]) == "b \ud800"
    first.kill()
    first.wait(60)
    assert template.render([{"content": "c"}]) == "c"
    (second,) = started_since(held)
    assert second != first
    del template
    gc.collect()
    assert not second.is_running()


def test_where_no_process_can_be_started_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    template = ChatTemplate(CHATML)
    monkeypatch.setattr("subprocess.Popen", refused)
    with pytest.raises(EngineError, match=r"needs a process of its own: .*run more processes"):
        template.render(MESSAGES)
    monkeypatch.undo()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(EngineError, match="is not ready"):
            template.render(MESSAGES)
        with pytest.raises(EngineError, match="is not ready"):
            template.check()
    assert "brief" in template.render(MESSAGES)


def test_nothing_that_templates_have_is_imported_too_late() -> None:
    """Behind the wall no file can be opened."""
    late = "{{ lipsum(n=2) }}{{ '\\N{BULLET}' }}{{ [1] | random }}{{ 'a.de' | urlize }}"
    late += "{{ 'é'.encode('latin-1') }}{{ 'é'.encode('utf-16') }}{{ 'a' | urlencode }}"
    late += "{{ strftime_now('%c %Z') }}{{ messages | pprint | wordwrap(9) }}{{ 0.1 | round(1) }}"
    assert "\u2022" in ChatTemplate(late).render(MESSAGES)
    with pytest.raises(InvalidRequest, match="a part of Python that chat templates do not have"):
        ChatTemplate("{{ 'é'.encode('cp437') }}").render(MESSAGES)


def test_many_threads_may_render_at_once() -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda i: template.render([{"content": f"{i}"}]), range(64))
    assert list(made) == [f"{i}" for i in range(64)]


def test_a_long_conversation_is_fast_enough() -> None:
    many = [{"role": "user", "content": "word " * 2000}] * 200
    text = ChatTemplate(CHATML).render(many)
    assert 1_900_000 < len(text) < MAX_CHARACTERS


def test_beginning_of_sequence_is_never_doubled() -> None:
    """Neither when the template writes it nor when the tokenizer adds it."""
    content: dict[str, Any] = json.loads(random_tiny_tokenizer().to_str())
    bos = random_tiny_tokenizer().token_id("<eos>")
    assert bos is not None
    piece = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [piece, {"Sequence": {"id": "A", "type_id": 0}}, piece],
        "pair": [],
        "special_tokens": {"<eos>": {"id": "<eos>", "ids": [bos], "tokens": ["<eos>"]}},
    }
    tokenizer = Tokenizer.from_str(json.dumps(content))
    assert tokenizer.prefix_ids == (bos,)
    plain = tokenizer.encode("hello")
    assert tokenizer.encode_prompt("hello") == [bos, *plain]
    template = ChatTemplate("{{ bos_token }}{{ messages[0].content }}", {"bos_token": "<eos>"})
    text = template.render([{"role": "user", "content": "hello"}])
    assert tokenizer.encode(text) == tokenizer.encode_prompt(text) == [bos, *plain]
    assert random_tiny_tokenizer().prefix_ids == ()
    assert random_tiny_tokenizer().encode_prompt("hello") == plain


def _template_processing(*, bos: bool, eos: bool) -> dict[str, Any]:
    """A post-processor as checkpoints store it, putting ids before and behind a text."""
    pieces: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    if bos:
        pieces.insert(0, {"SpecialToken": {"id": "<bos>", "type_id": 0}})
    if eos:
        pieces.append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
    ids = {token: random_tiny_tokenizer().token_id(token) for token in ("<bos>", "<eos>")}
    return {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in ids.items()},
    }


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer_class", [None, "PreTrainedTokenizerFast", "LlamaTokenizer"])
@pytest.mark.parametrize("add_bos_token", [None, True, False])
@pytest.mark.parametrize(
    "post_processor",
    [
        None,
        _template_processing(bos=False, eos=False),
        _template_processing(bos=True, eos=False),
        _template_processing(bos=True, eos=True),
    ],
    ids=["none", "bare", "bos", "bos and eos"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_plain_text_begins_as_transformers_lets_it_begin(
    post_processor: dict[str, Any] | None,
    add_bos_token: bool | None,
    tokenizer_class: str | None,
    tmp_path: Path,
) -> None:
    """Where there is a tokenizer.json it alone decides; `add_bos_token` beside it has no say."""
    transformers = pytest.importorskip("transformers")
    content: dict[str, Any] = json.loads(random_tiny_tokenizer().to_str())
    content["post_processor"] = post_processor
    settings = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "add_bos_token": add_bos_token,
        "tokenizer_class": tokenizer_class,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(given))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)("one text")["input_ids"]
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json").encode_prompt("one text")
    # What comes behind a text they add and we leave out: an answer follows.
    has_eos = post_processor is not None and "<eos>" in json.dumps(post_processor["single"])
    assert ours == (theirs[:-1] if has_eos else theirs)
    begins = post_processor is not None and "<bos>" in json.dumps(post_processor["single"])
    assert (ours[0] == random_tiny_tokenizer().token_id("<bos>")) == begins


def test_settings_are_read_and_written(tmp_path: Path) -> None:
    assert TokenizerConfig.from_directory(tmp_path) == TokenizerConfig()
    assert TokenizerConfig().template() is None
    config = TokenizerConfig({"bos_token": "<s>", "eos_token": "é"}, "{{ bos_token }}")
    config.write(tmp_path)
    assert TokenizerConfig.from_directory(tmp_path) == config
    template = config.template()
    assert template is not None
    assert template.render([]) == "<s>"


@pytest.mark.parametrize(
    ("settings", "template"),
    [
        ({"chat_template": "a"}, "a"),
        ({"chat_template": [{"name": "rag", "template": "r"}]}, ""),
        (
            {
                "chat_template": [
                    {"name": "t", "template": "r"},
                    {"name": "default", "template": "d"},
                ]
            },
            "d",
        ),
        ({"chat_template": None, "bos_token": {"content": "<b>"}, "pad_token": None}, ""),
    ],
)
def test_older_ways_to_store_a_template(
    settings: dict[str, Any], template: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = TokenizerConfig.from_directory(tmp_path)
    assert config.chat_template == template
    assert config.special_tokens == ({"bos_token": "<b>"} if "bos_token" in settings else {})
    (tmp_path / "chat_template.jinja").write_text("own file")
    assert TokenizerConfig.from_directory(tmp_path).chat_template == "own file"


OLDER = {"bos_token": {"content": "<old>"}, "eos_token": "</old>"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (None, {"bos_token": "<old>", "eos_token": "</old>"}),
        ({}, {"bos_token": "<old>", "eos_token": "</old>"}),
        ({"pad_token": "<p>"}, {"bos_token": "<old>", "eos_token": "</old>", "pad_token": "<p>"}),
        ({"eos_token": "</new>"}, {"bos_token": "<old>", "eos_token": "</old>"}),
        (
            {"eos_token": "</new>", "added_tokens_decoder": {}},
            {"bos_token": "<old>", "eos_token": "</new>"},
        ),
        ({"bos_token": None, "added_tokens_decoder": {}}, {"eos_token": "</old>"}),
    ],
)
def test_special_tokens_may_be_named_in_a_file_of_their_own(
    settings: dict[str, Any] | None, expected: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(OLDER))
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}|{{ eos_token }}")
    config = TokenizerConfig.from_directory(tmp_path)
    assert config.special_tokens == expected
    template = config.template()
    assert template is not None
    rendered = template.render([{"role": "user", "content": "x"}])
    assert rendered == f"{expected.get('bos_token', '')}|{expected['eos_token']}"


@pytest.mark.slow
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("named", [["eos_token"], ["bos_token", "eos_token"], []])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_older_file_has_the_precedence_that_transformers_gives_it(
    named: list[str], listed: bool, tmp_path: Path
) -> None:
    """They ignore it beside a newer file; there we take from it what is not named at all."""
    transformers = pytest.importorskip("transformers")
    settings: dict[str, Any] = {name: f"<new {name}>" for name in named}
    if listed:
        settings["added_tokens_decoder"] = {}
    (tmp_path / "tokenizer.json").write_text(random_tiny_tokenizer().to_str())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **settings})
    )
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(OLDER))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = TokenizerConfig.from_directory(tmp_path).special_tokens
    for name in ("bos_token", "eos_token"):
        if not listed or name in named:
            assert ours[name] == getattr(theirs, name)


def test_a_token_that_is_no_text_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": 3}')
    with pytest.raises(ModelError, match=r"special_tokens_map\.json: eos_token is 3"):
        TokenizerConfig.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auto_map": {"AutoTokenizer": ["x.Y", None]}}, "auto_map"),
        ({"bos_token": 3}, "bos_token is 3"),
        ({"chat_template": 3}, "chat_template is a int"),
    ],
)
def test_settings_that_cannot_be_meant(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=message):
        TokenizerConfig.from_directory(tmp_path)
