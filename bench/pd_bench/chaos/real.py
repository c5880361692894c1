"""The campaign through real processes: a server that dies, a proxy that breaks, a real model.

What is drawn for a request comes from the seed and its number; where exactly it strikes also
depends on this machine's speed, so a request that is run again is like the first time, not equal.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from pd_bench.chaos.cloud_process import CloudProcess
from pd_bench.chaos.disturbed import Disturbed, run_disturbed
from pd_bench.chaos.engine_fault import EngineFault
from pd_bench.chaos.fault_proxy import FaultProxy
from pd_bench.chaos.found import ChaosFound
from pd_bench.chaos.proxy_faults import draw_proxy_faults
from pd_bench.chaos.settings import ChaosSettings
from pd_bench.exactness.held_back import HeldEngine
from pd_bench.harness.server_process import ServerOptions
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import PdError
from pd_core.process.loading_thread import in_loading_thread
from pd_core.sampling_params import SamplingParams
from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.sides import CloudTimeouts

__all__ = ["real_campaign"]

_AT_ONCE = 4
_MOST_S = 60.0
_KILLED = 0.02  # of the requests kill the server
_EARLY = 0.15
_EMPTY_WITHIN_S = 15.0
# A reader would wait longer; a campaign has hundreds of silent clouds.
_TIMEOUTS = CloudTimeouts(admitted_s=2.0, first_token_s=4.0, idle_s=1.0, finish_s=0.5)


async def real_campaign(settings: ChaosSettings, progress: Callable[[int], None]) -> ChaosFound:
    """Disturb requests, a few at once.

    Args:
        settings: which; `only` runs that request alone.
        progress: called with the number of requests done.

    Raises:
        PdError: the server could not be started.
    """
    found = ChaosFound()
    loaded = await in_loading_thread(lambda: load_model(RANDOM_TINY))
    options = ServerOptions(RANDOM_TINY, max_num_seqs=3, max_num_waiting=2)
    numbers = iter(range(settings.requests) if settings.only is None else [settings.only])
    async with CloudProcess(options) as cloud:
        before = len(asyncio.all_tasks())

        async def work() -> None:
            for number in numbers:  # shared, so that each request is done once
                await _request(settings.seed, number, cloud, loaded, found)
                progress(found.requests)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
        await cloud.ready()
        found.leak(await _left_on(cloud.address), "requests on the server")
        found.leak(max(len(asyncio.all_tasks()) - before, 0), "tasks")
    return found


async def _request(
    seed: int, number: int, cloud: CloudProcess, loaded: LoadedModel, found: ChaosFound
) -> None:
    rng = random.Random(f"{seed} {number}")
    speeds = SpeedProfile("drawn", "drawn", 1 / rng.uniform(200, 4000), rng.uniform(0.002, 0.03))
    mode = Mode.PD_DEVICE if rng.random() < 0.85 else Mode.CLOUD_ONLY
    prompt = tuple(rng.randrange(3, 1000) for _ in range(rng.randrange(1, 200)))
    sampling = SamplingParams(temperature=rng.choice([0.0, 0.8]), seed=rng.randrange(2**32))
    ask = Ask(
        f"chaos-{number}",
        prompt,
        rng.randrange(1, 60),
        sampling,
        mode=mode,
        cloud_tokens=rng.choice([None, 0, 3, 20]),
    )
    faults = draw_proxy_faults(rng)
    words = [fault.words for fault in faults]
    engine: LocalEngine = ThrottledEngine(TorchLocalEngine(loaded, num_threads=1), speeds)
    fails = rng.random() < 0.1
    if fails:
        engine = HeldEngine(engine, EngineFault(rng.randrange(40), None).strike)
        words.append("device-fails")
    leaves_after = rng.randrange(1, ask.max_tokens + 1) if rng.random() < 0.05 else None
    expected = await _alone(loaded, ask)
    host, _, port = cloud.address.rpartition(":")
    async with FaultProxy(host, int(port)) as proxy:
        striking = list[asyncio.Task[None]]()
        if rng.random() < _KILLED:
            words.append("server-killed")
            striking.append(asyncio.create_task(_kill(cloud, rng.uniform(0.0, 0.5))))
        client = DeviceClient(
            cloud=GrpcCloudLink(f"127.0.0.1:{proxy.port}"),
            engine=engine,
            pace_s=rng.choice([0.005, 0.02]),
            device_profile=speeds,
            timeouts=_TIMEOUTS,
        )
        try:
            early = rng.random() < _EARLY  # else the cloud's card comes through
            if not early:
                await client.start()
            striking += [asyncio.create_task(fault.run(proxy)) for fault in faults]
            if early:
                await client.start()
            one = Disturbed(number, ask, expected, tuple(words), not fails, leaves_after, _MOST_S)
            await run_disturbed(one, client, found)
        finally:
            await client.close()
            for task in striking:
                task.cancel()
            await asyncio.gather(*striking, return_exceptions=True)


async def _kill(cloud: CloudProcess, after_s: float) -> None:
    await asyncio.sleep(after_s)
    cloud.kill()


async def _alone(loaded: LoadedModel, ask: Ask) -> list[int]:
    """Return the answer of the model alone, token after token, without any session."""
    engine = TorchLocalEngine(loaded, num_threads=1)
    sequence = engine.open(ask.sampling)
    answer = list[int]()
    try:
        fed = list(ask.prompt_token_ids)
        while len(answer) < ask.max_tokens:
            token_id = await sequence.feed(fed, len(answer))
            assert token_id is not None, "a position was asked for"
            answer.append(token_id)
            fed = [token_id]
            if token_id in loaded.eos_token_ids:
                break
    finally:
        sequence.close()
        await engine.close()
    return answer


async def _left_on(address: str) -> int:
    """Return how many requests a server still has, when it has had time to notice their end."""
    link = GrpcCloudLink(address)
    left = 1
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_EMPTY_WITHIN_S):
                while left:
                    load = (await link.info()).load
                    left = load.num_running + load.num_waiting
                    await asyncio.sleep(0.1)
    except PdError:
        return 1  # it does not even answer
    finally:
        await link.close()
    return left
