"""The conversation of `pd-device chat`, with a scripted reader, and reading from a terminal."""

import asyncio
import io
import os
import signal
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from pd_core.errors import ConfigError
from pd_core.text.chat_template import ChatTemplate
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Origin, Outcome, Shown
from pd_device_client.contract.ports import CloudLink
from pd_device_client.device.conversation import Conversation
from pd_device_client.device.device import Device
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.privacy.judge import PrivacyJudge
from pd_device_client.privacy.rules import LocalOnlyRules
from pd_device_client.session.session import Session
from pd_device_client.terminal.line_input import LineDropped, history_path, terminal_reader
from pd_device_client.terminal.repl import COMMANDS, Repl
from pd_device_client.terminal.settings import ChatSettings
from tests.api_server import EOS, QUICK, SLOW, emulated_engine, loaded_model, scripted_cloud
from tests.tokenizer_kinds import byte_fallback, ids

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


class Reader:
    """Types what it is told to; an exception is raised in its turn, a call is made."""

    def __init__(self, *script: Any) -> None:
        self._script = list(script)

    async def __call__(self) -> str:
        if not self._script:
            raise EOFError
        said = self._script.pop(0)
        if isinstance(said, BaseException):
            raise said
        if callable(said):
            said = said()
        return str(said)


async def converse(
    *script: Any,
    cloud: CloudLink | None = None,
    template: str | None = TEMPLATE,
    pace_s: float = 0.001,
    max_context_tokens: int = 4096,
    rules: LocalOnlyRules | None = None,
    **settings: Any,
) -> tuple[str, Repl, list[list[int]]]:
    """Hold a conversation; return what was printed, the REPL and the prompts of all answers."""
    profile = SLOW if cloud is not None else QUICK
    engine = emulated_engine(profile, max_context_tokens)
    prompts: list[list[int]] = []

    class Watched(DeviceClient):
        def session(self, ask: Ask) -> Session:
            prompts.append(list(ask.prompt_token_ids))
            return super().session(ask)

    loaded = loaded_model(None if template is None else ChatTemplate(template))
    client = Watched(
        cloud=cloud,
        engine=engine,
        pace_s=pace_s,
        device_profile=profile,
        text=loaded.tokenizer.stream,
        judged_only=rules is not None,
    )
    await client.start()
    device = Device(loaded, client, judge=PrivacyJudge(rules))
    screen = io.StringIO()
    repl = Repl(
        ChatSettings(
            **{
                "prompt": "",
                "device": DeviceSettings(model="", pace_s=pace_s),
                "mode": Mode.PD_DEVICE,
                "max_tokens": 12,
                "seed": 7,
                **settings,
            }
        ),
        device,
        Console(file=screen, width=10_000),
        Reader(*script),
        has_cloud=cloud is not None,
    )
    try:
        await asyncio.wait_for(repl.run(), 60)
    finally:
        await device.close()
        device.judge.close()
    return screen.getvalue(), repl, prompts


def text_of(ids: list[int]) -> str:
    return loaded_model().tokenizer.decode(ids)


async def test_a_turn_holds_all_that_was_said_before_it() -> None:
    printed, _, prompts = await converse("hello", "", "  ", "and then?")
    first = printed.splitlines()[1]
    assert text_of(prompts[0]) == "[user] hello\n[assistant] "
    expected = f"[user] hello\n[assistant] {first}\n[user] and then?\n[assistant] "
    assert text_of(prompts[1]) == expected
    assert len(prompts) == 2
    assert prompts[1][: len(prompts[0])] == prompts[0]


async def test_new_forgets_and_raw_prompts_stand_alone() -> None:
    _, _, prompts = await converse("hello", "/new", "hello")
    assert prompts[0] == prompts[1]
    _, _, prompts = await converse("hello", "hello", raw=True)
    assert prompts[0] == prompts[1]
    assert text_of(prompts[0]) == "hello"


async def test_a_base_model_is_said_to_go_on_with_a_text() -> None:
    printed, _, prompts = await converse("one", "two", template=None)
    assert "It is a base model" in printed
    continued = printed.splitlines()[2]
    assert text_of(prompts[1]) == f"one{continued}\n\ntwo"
    assert "It is a base model" not in (await converse())[0]


async def test_the_figures_are_those_of_the_last_answer_and_sums() -> None:
    printed, repl, _ = await converse(
        "/stats", "hello " * 40, "again", "/stats", cloud=scripted_cloud()
    )
    assert "no answer yet" in printed
    assert repl.totals.answers == 2
    assert repl.totals.shown_tokens > 0
    assert "TTFT" in printed
    assert "largest gap" in printed
    assert "handoff" in printed
    sums = repl.totals
    assert (
        f"chat: answers 2, handed over {sums.handed_over}, tokens shown {sums.shown_tokens}, made "
        f"by the cloud {sums.cloud_tokens}, without it {sums.cloud_tokens_saved}" in printed
    )


async def test_the_mode_is_changed_where_there_is_a_cloud() -> None:
    cloud = scripted_cloud()
    printed, repl, _ = await converse(
        "/mode", "/mode device-only", "hello", "/mode both", cloud=cloud
    )
    assert "mode pd-device\nmode device-only\n" in printed
    assert "there is no mode both; there are" in printed
    assert repl.mode is Mode.DEVICE_ONLY
    assert cloud.starts == []
    printed, repl, _ = await converse("/mode cloud-only", "/mode pd-device")
    assert "this chat has no cloud" in printed
    assert printed.endswith("mode pd-device\n")
    assert repl.mode is Mode.PD_DEVICE


async def test_commands_that_are_none_are_said_and_two_slashes_are_one() -> None:
    printed, _, prompts = await converse("/nonsense", "/help", "//mode is a word", "/quit", "no")
    assert "there is no command /nonsense; /help names them" in printed
    for line in COMMANDS.values():
        assert line in printed
    assert [text_of(ids) for ids in prompts] == ["[user] /mode is a word\n[assistant] "]


async def test_ctrl_c_while_typing_drops_the_line() -> None:
    _, _, prompts = await converse(LineDropped(), "hello")
    assert len(prompts) == 1


async def test_ctrl_c_stops_an_answer_and_the_chat_goes_on() -> None:
    def hello() -> str:
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, os.kill, os.getpid(), signal.SIGINT)
        return "hello"

    before = signal.getsignal(signal.SIGINT)
    printed, repl, prompts = await converse(hello, "more", pace_s=0.1, max_tokens=8)
    assert "(stopped)" in printed
    assert len(prompts) == 2
    shown = printed.partition("\n")[2].partition("\n(stopped)")[0]
    assert len(shown) > 0
    assert text_of(prompts[1]).startswith(f"[user] hello\n[assistant] {shown}\n[user] more")
    assert repl.totals.answers == 2
    assert signal.getsignal(signal.SIGINT) is before


async def test_a_prompt_that_cannot_be_answered_changes_nothing() -> None:
    printed, _, prompts = await converse("hello", "long " * 2000, "short", max_context_tokens=512)
    assert "the conversation is as before" in printed
    assert "long" not in text_of(prompts[-1])
    assert text_of(prompts[-1]).endswith("[user] short\n[assistant] ")


async def test_an_answer_ends_where_the_context_does() -> None:
    printed, _, prompts = await converse("hello", max_context_tokens=24, max_tokens=500)
    assert "the conversation is as before" not in printed
    assert len(prompts) == 1


# The ids of a conversation


def outcome_of(text: str, token_ids: list[int]) -> Outcome:
    outcome = Outcome("r", "device-only", 0, 0.0)
    outcome.shown = [
        Shown(i, token, text if i == 0 else "", Origin.DEVICE, 0.0)
        for i, token in enumerate(token_ids)
    ]
    return outcome


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_a_turn_begins_with_the_ids_that_were_made_though_others_have_the_same_text(
    template: str | None,
) -> None:
    loaded = loaded_model(None if template is None else ChatTemplate(template))
    conversation = Conversation(loaded)
    first = conversation.turn("hello")
    made = [i for letter in "import" for i in loaded.tokenizer.encode(letter)]
    assert made != loaded.tokenizer.encode("import")
    conversation.answered(first, outcome_of("import", [*made, EOS]))
    second = conversation.turn("more")
    assert second.token_ids[: len(first.token_ids) + len(made)] == (*first.token_ids, *made)
    assert EOS not in second.token_ids
    assert loaded.tokenizer.decode(second.token_ids) == second.text


@pytest.mark.parametrize(("template", "answer"), [(TEMPLATE, "Paris"), (None, " Paris")])
def test_a_turn_keeps_the_ids_of_an_answer_that_begins_with_a_space(
    template: str | None, answer: str
) -> None:
    tokenizer = byte_fallback()
    chat_template = None if template is None else ChatTemplate(template)
    loaded = replace(loaded_model(chat_template), tokenizer=tokenizer)
    conversation = Conversation(loaded)
    first = conversation.turn("it is")
    paris, end = ids(tokenizer, "\u2581Paris", "<|im_end|>")
    # The last is a stop string that is a special token: the template writes it again.
    conversation.answered(first, outcome_of(answer, [paris, end]))
    second = conversation.turn("in")
    assert second.token_ids[: len(first.token_ids) + 1] == (*first.token_ids, paris)
    assert end not in second.token_ids


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_what_was_made_but_not_shown_is_not_in_the_next_turn(template: str | None) -> None:
    loaded = loaded_model(None if template is None else ChatTemplate(template))
    conversation = Conversation(loaded)
    first = conversation.turn("hello")
    conversation.answered(first, outcome_of("imp", loaded.tokenizer.encode("import STOP")))
    second = conversation.turn("more")
    assert "STOP" not in loaded.tokenizer.decode(second.token_ids)
    assert loaded.tokenizer.decode(second.token_ids) == second.text


def test_a_template_that_changes_what_was_said_is_encoded_anew() -> None:
    template = "{% for m in messages %}{{ m.content | trim }}|{% endfor %}{{ messages[0].role }}"
    loaded = loaded_model(ChatTemplate(template + "{{ messages | length }}"))
    conversation = Conversation(loaded)
    first = conversation.turn("hello")
    conversation.answered(first, outcome_of(" import ", loaded.tokenizer.encode(" import ")))
    second = conversation.turn("more")
    assert loaded.tokenizer.decode(second.token_ids) == "hello|import|more|user3"


# Reading from a terminal


async def typed(*keys: str, history: Path | None = None) -> list[str | type[BaseException]]:
    """What comes of keys, a moment between two lots, until the terminal ends or raises."""
    read: list[str | type[BaseException]] = []
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        reader = terminal_reader(history, [*COMMANDS], lambda: "words")
        for i, lot in enumerate(keys):
            asyncio.get_running_loop().call_later(0.4 * i, pipe.send_text, lot)
        while not read or isinstance(read[-1], str):
            try:
                read.append(await asyncio.wait_for(reader(), 60))
            except (EOFError, LineDropped) as error:
                read.append(type(error))
    return read


async def test_enter_sends_alt_enter_breaks_a_line_and_a_paste_stays_whole() -> None:
    assert await typed("one\r\x04") == ["one", EOFError]
    assert await typed("one\x1b\rtwo\r\x04") == ["one\ntwo", EOFError]
    assert await typed("\x1b[200~a\nb\x1b[201~\r\x04") == ["a\nb", EOFError]
    assert await typed("half\x03") == [LineDropped]


async def test_a_command_is_completed() -> None:
    assert await typed("/st\t", "\r\x04") == ["/stats", EOFError]


async def test_history_is_kept_for_the_next_time_and_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    await typed("first\r\x04", history=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await typed("\x1b[A\r\x04", history=path) == ["first", EOFError]
    assert await typed("\x1b[A\r\x04") == ["", EOFError]


def test_a_history_that_cannot_be_written_is_refused_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--no-history"):
        terminal_reader(tmp_path / "file" / "history", [], lambda: "")


def test_history_is_in_the_users_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "pd-device" / "chat-history"
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_path() == tmp_path / ".local" / "state" / "pd-device" / "chat-history"


async def test_a_history_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch(mode=0o644)
    await typed("first\r\x04", history=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_private_conversation_stays_here_until_a_new_one_begins() -> None:
    cloud = scripted_cloud()
    said = ("what is this rash?", "/local", "and this?", "and that?", "/new", "something else?")
    printed, repl, _ = await converse(*said, cloud=cloud, pace_s=0.001)
    starts = ["".join(text_of(list(start.prompt_token_ids))) for start in cloud.starts]
    assert len(starts) == 2
    assert "this?" not in starts[1]
    assert "nothing of this conversation leaves this device" in printed
    assert repl.totals.answers == 4


async def test_a_rule_keeps_a_conversation_and_says_so_each_turn() -> None:
    cloud = scripted_cloud()
    rules = LocalOnlyRules(local_only_patterns=("patients=patient [0-9]+",))
    script = ("about patient 7", "and what else?", "/stats")
    printed, _, _ = await converse(*script, cloud=cloud, rules=rules)
    assert (cloud.starts, cloud.made) == ([], 0)
    assert 'note: kept on this device by the rule "patients"' in printed
    later = 'kept on this device, as an earlier turn was (by the rule "patients")'
    assert f"note: {later}" in printed
    assert later in printed.splitlines()[-3], "the figures have it too"
