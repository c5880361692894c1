"""What a model writes does not steer the reader's terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pd_core.text.chat_template import ChatTemplate
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.terminal.chat import asked, show
from pd_device_client.terminal.settings import ChatSettings
from tests.api_server import EOS, QUICK, loaded_model
from tests.saying_engine import SayingEngine
from tests.tokenizer_kinds import ids, metaspace

ROLES = "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}"
HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x9b1md\re\tf\n"


async def printed(*, terminal: bool) -> str:
    loaded = loaded_model()
    engine = SayingEngine(loaded.tokenizer, HOSTILE, EOS)
    client = DeviceClient(
        cloud=None, engine=engine, pace_s=0.001, device_profile=QUICK, text=loaded.tokenizer.stream
    )
    await client.start()
    screen = io.StringIO()
    console = Console(file=screen, width=1000, force_terminal=terminal, color_system=None)
    session = client.session(Ask("r", (1,), 60, mode=Mode.DEVICE_ONLY))
    await show(session, console, tint=False)
    await client.close()
    return screen.getvalue()


async def test_control_characters_are_shown_as_such_on_a_terminal() -> None:
    text = await printed(terminal=True)
    assert not {c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)}
    assert text.startswith("a\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}b")


@pytest.mark.parametrize(
    ("template", "raw", "words"),
    [(None, False, " Paris\n"), (ROLES, True, " Paris\n"), (ROLES, False, "Paris\n")],
)
async def test_the_first_space_stays_where_a_text_goes_on(
    template: str | None, raw: bool, words: str
) -> None:
    tokenizer = metaspace()
    eos, behind, paris = ids(tokenizer, "</s>", "\u2581is", "\u2581Paris")
    chat_template = None if template is None else ChatTemplate(template)
    loaded = replace(loaded_model(chat_template), tokenizer=tokenizer, eos_token_ids=(eos,))
    engine = SayingEngine(tokenizer, "", eos)
    engine.token_ids = [paris, eos]
    client = DeviceClient(
        cloud=None, engine=engine, pace_s=0.001, device_profile=QUICK, text=tokenizer.stream
    )
    await client.start()
    screen = io.StringIO()
    settings = ChatSettings(raw=raw)
    session = client.session(asked(settings, loaded, (behind,), Mode.DEVICE_ONLY, 9))
    await show(session, Console(file=screen, width=1000), tint=False)
    await client.close()
    assert screen.getvalue() == words


async def test_a_file_gets_the_words_as_they_are() -> None:
    assert "\x1b]0;title" in await printed(terminal=False)
