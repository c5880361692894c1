"""What a model writes does not steer the reader's terminal."""

import io

from rich.console import Console

from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.terminal.chat import show
from tests.api_server import EOS, QUICK, loaded_model
from tests.saying_engine import SayingEngine

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


async def test_a_file_gets_the_words_as_they_are() -> None:
    assert "\x1b]0;title" in await printed(terminal=False)
