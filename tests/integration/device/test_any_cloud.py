"""Any OpenAI-compatible server as the cloud: the answers are the device's own, whatever it does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.generation import Finished
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.openai.openai_link import OpenAiCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.sides import CloudTimeouts
from tests.openai_server import OpenAiServer, Script, openai_server

LENGTH = 24
SLOW = SpeedProfile("slow", "a test", 1e-5, 0.01)
CHAT = ({"role": "user", "content": "What may a reader do?"},)
TIMEOUTS = CloudTimeouts(admitted_s=5.0, first_token_s=2.0, idle_s=0.5, finish_s=0.5)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny", numerics="float32")


@pytest.fixture
async def engine(loaded: LoadedModel) -> AsyncIterator[TorchLocalEngine]:
    made = TorchLocalEngine(loaded, num_threads=1)
    yield made
    await made.close()


@dataclass
class Reader:
    """Asks one question again and again, of one device."""

    loaded: LoadedModel
    engine: TorchLocalEngine

    def __post_init__(self) -> None:
        text = "The licence says what a reader may do with the text, and what not. " * 4
        self.prompt = tuple(self.loaded.tokenizer.encode_prompt(text))

    async def alone(self, committed: tuple[int, ...] = ()) -> list[int]:
        """The device's own greedy answer, token by token; the slow reference."""
        sequence = self.engine.open(SamplingParams())
        made: list[int] = list(committed)
        fed = (*self.prompt, *committed)
        while len(made) < LENGTH and (not made or made[-1] not in self.loaded.eos_token_ids):
            token_id = await sequence.feed(fed, len(made))
            assert token_id is not None
            made.append(token_id)
            fed = (token_id,)
        sequence.close()
        return made

    @asynccontextmanager
    async def beside(
        self, server: OpenAiServer, *, held_s: float | None = None, device: bool = True
    ) -> AsyncIterator[DeviceClient]:
        """A client of the server and, unless `device` is False, of this device.

        The device waits for the end of the cloud's part, or for `held_s`.
        """
        link = OpenAiCloudLink(CloudAddress(server.url))
        link.use_model(self.engine.card, self.loaded.tokenizer)
        finished = asyncio.Event()
        telling = WatchedLink(
            link, lambda event, _: finished.set() if isinstance(event, Finished) else None
        )
        if held_s is not None:
            asyncio.get_running_loop().call_later(held_s, finished.set)
        client = DeviceClient(
            cloud=telling,
            engine=HeldEngine(self.engine, finished.wait) if device else None,
            pace_s=0.01,
            device_profile=SLOW,
            timeouts=TIMEOUTS,
            text=self.loaded.tokenizer.stream,
        )
        await client.cloud.meet()
        try:
            yield client
        finally:
            client.cloud.stop()
            await link.close()

    async def answer(
        self, client: DeviceClient, cloud_tokens: int | None, mode: Mode = Mode.PD_DEVICE
    ) -> Outcome:
        ask = Ask("r", self.prompt, LENGTH, cloud_tokens=cloud_tokens, mode=mode, messages=CHAT)
        session = client.session(ask)
        async with asyncio.timeout(60), aclosing(session.run()) as shown:
            async for _ in shown:
                pass
        return session.outcome


@pytest.fixture
def reader(loaded: LoadedModel, engine: TorchLocalEngine) -> Reader:
    return Reader(loaded, engine)


@asynccontextmanager
async def serving(reader: Reader, answer: list[int], script: Script) -> AsyncIterator[OpenAiServer]:
    tokenizer = reader.loaded.tokenizer
    async with openai_server(tokenizer, len(reader.prompt), answer, script) as server:
        yield server


@pytest.mark.parametrize("kind", ["vllm", "llama-server"])
async def test_an_answer_handed_over_anywhere_is_the_device_s_own(
    reader: Reader, kind: str
) -> None:
    alone = await reader.alone()
    async with serving(reader, alone, Script(kind)) as server:
        for position in (1, 2, 7, 15, LENGTH - 1):
            async with reader.beside(server) as client:
                outcome = await reader.answer(client, position)
            assert outcome.token_ids == alone
            assert outcome.handoff_position == position
            assert outcome.cloud_tokens == position
            assert outcome.exactness == "consistent"
            assert outcome.disagreed == 0


@pytest.mark.parametrize("kind", ["chat", "ollama"])
async def test_the_handoff_continues_the_text_of_a_text_service(reader: Reader, kind: str) -> None:
    alone = await reader.alone()
    tokenizer = reader.loaded.tokenizer
    text = tokenizer.decode(alone)
    async with serving(reader, alone, Script(kind, pieces=8)) as server:
        for position in (1, 6, 13):
            async with reader.beside(server) as client:
                outcome = await reader.answer(client, position)
            made = outcome.cloud_tokens
            assert made > 0
            assert outcome.device_tokens > 0
            begun = tuple(outcome.token_ids[:made])
            assert text.startswith(tokenizer.decode(begun))
            assert outcome.token_ids == await reader.alone(begun)
            assert outcome.exactness == "text"
            assert any("text" in note for note in outcome.notes)


BAD = {
    "ignores max_tokens": Script(overrun=50),
    "sends other ids than text": Script(ids_of=lambda ids: [(i + 9) % 1000 + 2 for i in ids]),
    "sends ids beyond the vocabulary": Script(ids_of=lambda ids: [i + 5000 for i in ids]),
    "sends text without ids": Script(no_ids=True),
    "stops in the middle of JSON": Script(cut_after=3, cut_with=b'data: {"choices": [{"te'),
    "ends without an end": Script(cut_after=3),
    "sends no JSON": Script(cut_after=2, cut_with=b"data: <html>\n\n"),
    "reports an error": Script(error_after=(2, {"message": "out of memory"})),
    "says nothing more": Script(stall_after=3),
    "says nothing at all": Script(stall_after=0),
    "answers 429 for a minute": Script(refuse=lambda _: (429, {"retry-after": "60"})),
    "answers 503": Script(refuse=lambda _: (503, {})),
    "answers 400": Script(refuse=lambda _: (400, {})),
    "refuses the key": Script(refuse=lambda _: (401, {})),
    "redirects": Script(refuse=lambda _: (302, {"location": "http://192.0.2.1/v1"})),
    "changes its model": Script(says=lambda _: "another"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.slow
async def test_of_a_bad_cloud_no_wrong_token_is_shown(reader: Reader, what: str) -> None:
    alone = await reader.alone()
    async with (
        serving(reader, alone, BAD[what]) as server,
        reader.beside(server, held_s=1.0) as client,
    ):
        outcome = await reader.answer(client, 8)
    assert outcome.token_ids == alone
    assert outcome.error is None
    assert server.asked


async def test_a_busy_cloud_is_asked_again_when_it_says(reader: Reader) -> None:
    alone = await reader.alone()
    busy = Script(refuse=lambda number: (429, {"retry-after": "0"}) if number < 3 else None)
    async with (
        serving(reader, alone, busy) as server,
        reader.beside(server, device=False) as client,
    ):
        outcome = await reader.answer(client, None, Mode.CLOUD_ONLY)
    assert outcome.token_ids == alone
    assert len(server.asked) == 3


async def test_a_stream_that_breaks_is_continued_where_it_broke(reader: Reader) -> None:
    alone = await reader.alone()
    script = Script(cut_after=4, cut_streams=1)
    async with serving(reader, alone, script) as server, reader.beside(server) as client:
        outcome = await reader.answer(client, 12)
    assert outcome.token_ids == alone
    assert outcome.cloud_tokens == 12
    assert len(server.asked[1]["prompt"]) == len(reader.prompt) + 4


async def test_a_cloud_that_is_gone_leaves_the_device(reader: Reader) -> None:
    alone = await reader.alone()
    async with serving(reader, alone, Script()) as server:
        pass
    async with reader.beside(server, held_s=0.0) as client:
        assert client.cloud.error is not None
        outcome = await reader.answer(client, None)
    assert outcome.token_ids == alone


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert "licence says" not in caplog.text  # no prompt in the log


@pytest.mark.usefixtures("_quiet")
async def test_no_prompt_is_logged_when_a_cloud_echoes_it(
    reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "pd_device_client")
    alone = await reader.alone()
    bad = Script(cut_after=1, cut_with=b"data: The licence says\n\n")
    async with serving(reader, alone, bad) as server, reader.beside(server, held_s=1.0) as client:
        assert (await reader.answer(client, 8)).token_ids == alone
