"""The OpenAI API of a device in a thread of this process, for clients that talk to a real port.

The device has the tokenizer of random-tiny and an engine that takes tokens from a hash, so that
nothing has to be computed; a scripted cloud makes the same tokens.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_core.checkpoints.loading import LoadedModel
from pd_core.checkpoints.random_tiny import EOS_TOKEN, random_tiny_config, random_tiny_tokenizer
from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.generation import Fingerprints
from pd_core.grammar.grammars import Grammars
from pd_core.identity.numerics import unchecked
from pd_core.models.causal_lm import CausalLM
from pd_core.sockets.listening import bind
from pd_core.text.chat_template import ChatTemplate
from pd_device_client.api.app import make_app
from pd_device_client.api.http.guard import Access
from pd_device_client.api.http.http_server import HttpServer
from pd_device_client.api.http.places import Places
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.api.status import Status
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.choice import CloudChoice
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.device.device import Device
from pd_device_client.device.residency import Residency
from pd_device_client.planning.cloud_allowance import CloudCaps, DayAccount
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.privacy.judge import PrivacyJudge
from pd_device_client.privacy.rules import LocalOnlyRules
from tests.http_client import http
from tests.scripted_cloud import ScriptedCloud

T = TypeVar("T")

QUICK = SpeedProfile("quick", "a test", 1e-6, 0.0005)
SLOW = SpeedProfile("slow", "a test", 1 / 3000, 0.003)
TOKENIZER = random_tiny_tokenizer()
_eos = TOKENIZER.token_id(EOS_TOKEN)
assert _eos is not None
EOS = _eos
ROLES = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
"""A template that knows roles, so that its model chats."""
CREATED = 1_700_000_000


def loaded_model(
    template: ChatTemplate | None = None, defaults: SamplingDefaults | None = None
) -> LoadedModel:
    """All of random-tiny but its weights."""
    numerics = unchecked("meta")
    config = random_tiny_config(TOKENIZER.vocab_size)
    return LoadedModel(
        name="random-tiny",
        model=CausalLM(config, numerics, device=torch.device("meta")),
        tokenizer=TOKENIZER,
        fingerprints=Fingerprints(weights="0123456789abcdef"),
        eos_token_ids=(EOS,),
        numerics=numerics,
        chat_template=template,
        sampling_defaults=defaults or SamplingDefaults(),
    )


def emulated_engine(profile: SpeedProfile = QUICK, max_context_tokens: int = 4096) -> LocalEngine:
    return EmulatedDeviceEngine(
        profile,
        vocab_size=TOKENIZER.vocab_size,
        eos_token_ids=[EOS],
        max_context_tokens=max_context_tokens,
    )


def scripted_cloud() -> ScriptedCloud:
    return ScriptedCloud(vocab_size=TOKENIZER.vocab_size, eos=EOS)


@dataclass
class ApiServer:
    """A running API.

    Attributes:
        address: "host:port".
        device: what it serves; to be touched on its own loop only.
        loop: that loop.
    """

    address: str
    device: Device
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def gauge(self, name: str) -> float:
        """Read one value of /metrics."""
        text = http.get(f"{self.url}/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@contextmanager
def api_server(
    *,
    loaded: LoadedModel | None = None,
    engine: LocalEngine | None = None,
    cloud: CloudLink | None = None,
    make_cloud: Callable[[], CloudLink] | None = None,
    settings: AnswerSettings | None = None,
    access: Access | None = None,
    max_requests: int = 64,
    pace_s: float = 0.001,
    profile: SpeedProfile = QUICK,
    cloud_address: str | None = None,
    way_out: Callable[[str | None], CloudLink | None] | None = None,
    grammars: Grammars | None = None,
    rules: LocalOnlyRules | None = None,
    caps: CloudCaps | None = None,
    account: DayAccount | None = None,
) -> Iterator[ApiServer]:
    """Serve until the block ends.

    Args:
        make_cloud: makes a link on the server's own loop.
        way_out: makes links to the clouds that are chosen; without it none can be.
        rules: which requests stay on the device.
        caps: on the cloud.
        account: the day's.
    """
    started = threading.Event()
    box: list[ApiServer] = []
    failure: list[BaseException] = []

    async def main(stopped: asyncio.Event) -> None:
        client = DeviceClient(
            cloud=cloud if make_cloud is None else make_cloud(),
            engine=engine or emulated_engine(profile),
            pace_s=pace_s,
            device_profile=profile,
            text=(loaded or loaded_model()).tokenizer.stream,
            grammars=grammars,
            judged_only=rules is not None,
            caps=caps,
            account=account,
        )
        await client.start()
        device = Device(
            loaded or loaded_model(), client, grammars=grammars, judge=PrivacyJudge(rules)
        )
        status = Status(
            settings or AnswerSettings(),
            Places(max_requests),
            CloudChoice(cloud_address, way_out or _no_way, settable=way_out is not None),
        )
        residency = Residency(_already(device), status)
        app = make_app(
            residency,
            status,
            access or Access(),
            unix_time_s=lambda: CREATED,
        )
        await residency.load()
        server = HttpServer(app, bind("127.0.0.1", 0, "--port"))
        await server.start()
        box.append(ApiServer(server.address, device, asyncio.get_running_loop()))
        started.set()
        await stopped.wait()
        await server.stop()
        await residency.close()
        device.judge.close()

    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()

    def serve() -> None:
        try:
            loop.run_until_complete(main(stopped))
        except BaseException as error:  # shown by the test that started this
            failure.append(error)
            started.set()
        finally:  # here, as the starting thread may be running a loop of its own
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=serve, name="api-server")
    thread.start()
    assert started.wait(60), "the server did not start"
    if failure:
        raise failure[0]
    try:
        yield box[0]
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(60)
    if failure:
        raise failure[0]


def _no_way(target: str | None) -> CloudLink | None:
    return None


def _already(device: Device) -> Callable[[], Awaitable[Device]]:
    async def opened() -> Device:
        return device

    return opened
