"""What a client learns of its link, of first tokens and of its passes, and plans with that."""

from dataclasses import replace

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.shaped_link import ShapedCloudLink
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Promise
from pd_device_client.planning.speeds.estimates import CloudEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile, link_profile
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud

PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)
N = 8000
ASK = Ask("r", tuple(i % 40 for i in range(N)), 70, SamplingParams(forced_length=60))


def _client(link_name: str, promise: Promise) -> DeviceClient:
    link = ShapedCloudLink(ScriptedCloud(Script()), link_profile(link_name), seed=5)
    engine = EmulatedDeviceEngine(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
    return DeviceClient(
        cloud=link,
        engine=engine,
        pace_s=promise.pace_s,
        device_profile=PROFILE,
        promise=promise,
    )


@pytest.mark.parametrize("name", ["lte", "mobile-us", "satellite"])
def test_running_requests_show_the_links_bandwidth(name: str) -> None:
    async def main() -> CloudEstimate:
        client = _client(name, Promise(0.1))
        await client.start()
        for _ in range(9):
            async for _ in client.session(ASK).run():
                pass
        await client.close()
        return client.cloud.estimate

    estimate = run_virtual(main())
    expected = link_profile(name).bytes_per_s
    assert expected is not None
    assert estimate.upload_bytes_per_s == pytest.approx(expected, rel=0.5)


def test_first_tokens_that_vary_get_more_cloud_tokens_only_for_a_promise_by_name() -> None:
    async def planned(promise: Promise, *, varies: bool) -> int:
        client = _client("loopback", promise)
        await client.start()
        estimate = client.cloud.estimate
        estimate.rtt_s = 0.3
        for i in range(30):
            estimate.observe_first(N, 0.3 * (1 + (i % 5) * 0.5 if varies else 2))
        return client.session(ASK).plan.cloud_tokens

    exact = Promise(0.4)
    named = replace(exact, largest_gap_s=0.5)
    found = {
        (promise, varies): run_virtual(planned(promise, varies=varies))
        for promise in (exact, named)
        for varies in (False, True)
    }
    assert found[exact, False] == found[exact, True]
    assert found[named, False] < found[named, True]


def test_passes_that_vary_get_more_cloud_tokens_only_for_a_promise_by_name() -> None:
    async def planned(promise: Promise, *, varies: bool) -> int:
        client = _client("loopback", promise)
        await client.start()
        estimate = client.device_estimate
        for i in range(32):  # no whole prefill, of which forecasts could be judged
            estimate.observe_pass(1000 * (i % 2), 100, 0.25 * (1 + (i % 5 - 2) * 0.15 * varies))
        return client.session(ASK).plan.cloud_tokens

    exact = Promise(0.4)
    named = replace(exact, largest_gap_s=0.44)
    even, uneven = (
        {p: run_virtual(planned(p, varies=varies)) for p in (exact, named)}
        for varies in (False, True)
    )
    assert uneven[named] - even[named] > uneven[exact] - even[exact]
