"""The campaign on a virtual clock: real sessions, a simulated cloud, links and devices that fail.

Requests come in small worlds of one cloud with few slots, so that they also disturb each other.
Everything of a world is drawn from the seed and the world's number, and happens again as it did.
"""

import asyncio
import random
from collections.abc import Callable

from pd_bench.chaos.disturbed import Disturbed, run_disturbed
from pd_bench.chaos.engine_fault import EngineFault
from pd_bench.chaos.found import ChaosFound
from pd_bench.chaos.link_faults import FaultyLink, draw_link_faults
from pd_bench.chaos.settings import ChaosSettings
from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.exactness.held_back import HeldEngine
from pd_bench.simulation.cloud.cloud_profile import read_cloud_profile
from pd_bench.simulation.cloud.simulated_cloud import (
    EOS_TOKEN_ID,
    VOCAB_SIZE,
    SimulatedCloud,
    SimulatedLink,
)
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.planning.speeds.profiles import LinkProfile, SpeedProfile

__all__ = ["WORLD", "simulated_campaign"]

WORLD = 8
"""Requests of one world."""

_SETTLED_S = 120.0  # longer than any of the server's and the client's waits
_MOST_S = 3600.0


def simulated_campaign(settings: ChaosSettings, progress: Callable[[int], None]) -> ChaosFound:
    """Disturb requests, world after world.

    Args:
        settings: which; `only` runs the world of that request.
        progress: called with the number of requests done.
    """
    found = ChaosFound()
    worlds = range(-(-settings.requests // WORLD))
    if settings.only is not None:
        worlds = range(settings.only // WORLD, settings.only // WORLD + 1)
    for world in worlds:
        run_virtual(_World(settings.seed, world, found).run())
        progress(found.requests)
    return found


class _World:
    """One cloud and the devices around it."""

    def __init__(self, seed: int, number: int, found: ChaosFound) -> None:
        self._rng = random.Random(f"{seed} {number}")
        self._number = number
        self._found = found

    async def run(self) -> None:
        """Run its requests, and count what is left when all have ended."""
        rng = self._rng
        bounds = {
            "max_num_seqs": rng.randrange(1, 5),
            "max_num_waiting": rng.randrange(0, 4),
            "spread": 0.1,
        }
        name = rng.choice(["gpu-8b", "small-gpu-8b"])
        profile = read_cloud_profile(name).model_copy(update=bounds)
        cloud = SimulatedCloud(profile, rng.randrange(2**32))
        crash = (rng.uniform(0.0, 8.0), rng.uniform(0.1, 30.0)) if rng.random() < 0.3 else None
        requests = [self._request(self._number * WORLD + at, cloud, crash) for at in range(WORLD)]
        async with asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(request)
        await asyncio.sleep(_SETTLED_S)
        load = cloud.load()
        self._leaked(load.num_running + load.num_waiting, "requests on the cloud")
        self._leaked(len(asyncio.all_tasks()) - 1, "tasks")

    def _leaked(self, count: int, what: str) -> None:
        self._found.leak(count, f"{count} {what} after world {self._number}")

    async def _request(
        self, number: int, cloud: SimulatedCloud, crash: tuple[float, float] | None
    ) -> None:
        rng = random.Random(self._rng.randrange(2**63))
        speeds = SpeedProfile(
            "drawn", "drawn", 1 / rng.uniform(50, 4000), rng.uniform(0.005, 0.3), spread=0.1
        )
        engine: LocalEngine = EmulatedDeviceEngine(
            speeds,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=(EOS_TOKEN_ID,),
            seed=rng.randrange(2**32),
        )
        faults, fails = list[str](), False
        if rng.random() < 0.25:
            fails = rng.random() < 0.5
            at_pass, pause_s = rng.randrange(60), None if fails else rng.uniform(0.1, 20.0)
            engine = HeldEngine(engine, EngineFault(at_pass, pause_s).strike)
            faults.append(f"{'device-fails' if fails else 'device-pauses'} at pass {at_pass}")
        line = LinkProfile("drawn", "drawn", rng.uniform(0.001, 0.2), rng.uniform(0, 0.05))
        drawn = draw_link_faults(rng)
        faults += [f"{fault.kind} after {fault.after}" for fault in drawn if fault is not None]
        link = FaultyLink(SimulatedLink(cloud, line, rng.randrange(2**32)), drawn)
        await asyncio.sleep(rng.uniform(0.0, 3.0))
        client = DeviceClient(
            cloud=link,
            engine=engine,
            pace_s=rng.choice([0.02, 0.05, 0.2]),
            device_profile=speeds,
        )
        await client.start()
        crashing = None
        if crash is not None:
            faults.append("crash of the cloud")
            crashing = asyncio.create_task(_crash(link, *crash))
        one = _drawn(rng, number, tuple(faults), well=not fails)
        try:
            await run_disturbed(one, client, self._found)
        finally:
            if crashing is not None:
                await crashing
            await client.close()


async def _crash(link: FaultyLink, after_s: float, for_s: float) -> None:
    await asyncio.sleep(after_s)
    link.crash()
    await asyncio.sleep(for_s)
    link.restart()


def _drawn(rng: random.Random, number: int, faults: tuple[str, ...], *, well: bool) -> Disturbed:
    prompt = tuple(rng.randrange(3, VOCAB_SIZE) for _ in range(int(rng.expovariate(1 / 600)) + 1))
    length = rng.randrange(1, 80)
    mode = Mode.PD_DEVICE if rng.random() < 0.85 else Mode.CLOUD_ONLY
    limit = max(1, length + rng.choice([0, 5, -3]))
    ask = Ask(
        f"chaos-{number}",
        prompt,
        limit,
        SamplingParams(seed=rng.randrange(2**32), forced_length=length),
        mode=mode,
        cloud_tokens=rng.choice([None, None, 0, 1, 5, 40]),
    )
    leaves_after = rng.randrange(1, length + 1) if rng.random() < 0.05 else None
    whole = _answer(ask)
    return Disturbed(number, ask, whole, faults, well, leaves_after, _MOST_S)


def _answer(ask: Ask) -> list[int]:
    """Return the answer as the definition of the tokens has it, without any session."""
    state = RollingHash(VOCAB_SIZE, (EOS_TOKEN_ID,), ask.prompt_token_ids)
    answer = list[int]()
    while len(answer) < ask.max_tokens:
        answer.append(state.next_token(len(answer), ask.sampling))
        state.extend(answer[-1:])
        if answer[-1] == EOS_TOKEN_ID:
            break
    return answer
