"""Promises on the way of a whole request: what is sent, and what is not."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.errors import (
    CloudAuthenticationFailed,
    CloudBudgetSpent,
    ContradictoryPromises,
    EngineError,
    InvalidRequest,
    PdError,
)
from pd_core.generation import Extend, Load, ServerInfo
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.contract.cloud_reason import CloudReason
from pd_device_client.contract.outcome import Origin, Outcome
from pd_device_client.contract.privacy import FREE, KeptBy, Privacy
from pd_device_client.device.cloud_use import CloudUse
from pd_device_client.planning.cloud_allowance import CloudCaps
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.session import Session
from tests.scripted_cloud import EOS, VOCAB_SIZE, Script, ScriptedCloud

PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)
PHONE = SpeedProfile("phone", "a test", 1 / 1500, 0.08)


class _Watched(ScriptedCloud):
    """Counts every call that could reach a cloud, and publishes its speed."""

    calls = 0

    async def info(self) -> ServerInfo:
        self.calls += 1
        load = Load(decode_step_s=self.script.step_s, prefill_tokens_per_s=5000.0)
        return replace(await super().info(), load=load)


def _ask(
    length: int = 60,
    mode: Mode = Mode.PD_DEVICE,
    promise: Promise | None = None,
    most: int | None = None,
) -> Ask:
    sampling = SamplingParams(forced_length=length)
    prompt = tuple(i % 40 for i in range(400))
    return Ask("r", prompt, most or length + 10, sampling, mode=mode, promise=promise)


def _client(
    cloud: ScriptedCloud,
    promise: Promise,
    profile: SpeedProfile = PROFILE,
    caps: CloudCaps | None = None,
    account: CloudUse | None = None,
    *,
    engine: bool = True,
) -> DeviceClient:
    local = EmulatedDeviceEngine(profile, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
    return DeviceClient(
        cloud=cloud,
        engine=local if engine else None,
        pace_s=promise.pace_s,
        device_profile=profile,
        promise=promise,
        caps=caps,
        account=account,
    )


def _answer(client: DeviceClient, ask: Ask) -> Outcome:
    async def main() -> Outcome:
        await client.start()
        session = client.session(ask)
        with contextlib.suppress(PdError):  # the outcome has it too
            async for _ in session.run():
                pass
        return session.outcome

    return run_virtual(main())


@pytest.mark.parametrize("by_request", [False, True])
def test_local_only_sends_nothing_of_a_request(by_request: bool) -> None:
    cloud = _Watched()
    local = Promise(0.1, local_only=True)
    client = _client(cloud, Promise(0.1) if by_request else local)
    ask = _ask(promise=local if by_request else None)

    async def main() -> Outcome:
        await client.start()
        cloud.calls = 0
        session = client.session(ask)
        async for _ in session.run():
            pass
        return session.outcome

    outcome = run_virtual(main())
    assert (outcome.mode, len(outcome.shown)) == ("device-only", 60)
    assert (cloud.starts, cloud.sent, cloud.calls) == ([], [], 0)


def test_local_only_sends_nothing_even_when_the_device_fails() -> None:
    class Failing(EmulatedDeviceEngine):
        def draw_s(self, first_position: int, num_tokens: int) -> float:
            raise EngineError("out of memory")

    cloud = _Watched()
    engine = Failing(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
    promise = Promise(0.1, local_only=True)
    client = DeviceClient(
        cloud=cloud, engine=engine, pace_s=0.1, device_profile=PROFILE, promise=promise
    )
    outcome = _answer(client, _ask())
    assert isinstance(outcome.error, EngineError)
    assert cloud.starts == []


def test_a_request_against_the_standing_promise_is_refused() -> None:
    client = _client(_Watched(), Promise(0.1, local_only=True))
    with pytest.raises(ContradictoryPromises, match="local-only"):
        _answer(client, _ask(mode=Mode.CLOUD_ONLY))


@pytest.mark.parametrize("cut_after", [None, 3])
def test_no_request_gets_more_of_the_cloud_than_its_cap(cut_after: int | None) -> None:
    """Neither by Extend, nor by a new stream after a cut."""
    cloud = ScriptedCloud(Script(cut_after=cut_after, cut_streams=1))
    slow = replace(PROFILE, prefill_b_s=1 / 100)  # it needs far more than the cap
    outcome = _answer(_client(cloud, Promise(0.05, max_cloud_tokens=8), slow), _ask())
    assert len(outcome.shown) == 60
    assert 1 <= cloud.made <= 8
    assert sum(start.token_limit - start.first_position for start in cloud.starts) <= 8 + 8
    assert all(m.token_limit <= 8 for m in cloud.sent if isinstance(m, Extend))


def test_the_day_ends_for_the_cloud_when_its_tokens_are_made() -> None:
    cloud, account = ScriptedCloud(), CloudUse(None)
    caps = CloudCaps(day_tokens=30)
    client = _client(cloud, Promise(0.05), caps=caps, account=account)
    outcomes = [_answer(client, _ask()) for _ in range(4)]
    assert all(len(outcome.shown) == 60 for outcome in outcomes)
    assert cloud.made <= 30
    assert outcomes[-1].mode == "device-only"
    alone = _client(cloud, Promise(0.05), caps=caps, account=account, engine=False)
    with pytest.raises(CloudBudgetSpent, match="ask again tomorrow"):
        _answer(alone, _ask())


def test_without_a_device_an_answer_ends_at_the_cap_and_says_why() -> None:
    cloud = ScriptedCloud()
    client = _client(cloud, Promise(0.05, max_cloud_tokens=20), engine=False)
    outcome = _answer(client, _ask())
    assert len(outcome.shown) == 20
    assert isinstance(outcome.error, CloudBudgetSpent)
    assert "after 20 tokens" in str(outcome.error)


def test_both_take_turns_where_the_device_is_below_the_pace() -> None:
    """The cloud makes less than it would alone, and the reader sees no gap for it."""
    cloud = _Watched(Script(first_token_s=0.1, step_s=0.01))
    outcome = _answer(_client(cloud, Promise(0.05), PHONE), _ask(length=400, most=1000))
    assert len(outcome.shown) == 400
    assert len(cloud.starts) >= 4, "it came back"
    assert cloud.made < 0.6 * 400
    assert outcome.unused_tokens < 0.1 * 400
    assert outcome.largest_gap_s is not None
    assert outcome.largest_gap_s < 1.25 * 0.05


def test_turns_that_are_too_short_end_and_the_cloud_makes_the_rest() -> None:
    cloud = _Watched(Script(first_token_s=0.1, step_s=0.01))
    client = _client(cloud, Promise(0.05), PHONE)
    engine = client._engine
    assert isinstance(engine, EmulatedDeviceEngine)

    async def main() -> Outcome:
        await client.start()
        session = client.session(_ask(length=400, most=1000))
        assert session.plan.takes_turns
        engine._profile = replace(PHONE, decode_s=0.48)  # from now on it is far slower
        async for _ in session.run():
            pass
        return session.outcome

    outcome = run_virtual(main())
    assert len(outcome.shown) == 400
    assert outcome.device_tokens < 60
    assert len(cloud.starts) <= 8


def test_a_client_with_rules_keeps_what_nobody_has_judged() -> None:
    """So an answer that is asked for in a new way cannot go around the rules."""
    cloud = _Watched()
    local = EmulatedDeviceEngine(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
    client = DeviceClient(
        cloud=cloud, engine=local, pace_s=0.1, device_profile=PROFILE, judged_only=True
    )
    outcome = _answer(client, _ask())
    assert outcome.privacy == Privacy(KeptBy.NOT_TESTED)
    assert (cloud.starts, cloud.sent) == ([], [])
    free = _answer(client, replace(_ask(), privacy=FREE))
    assert free.sent_to_cloud
    assert len(cloud.starts) >= 1


@pytest.mark.parametrize("mode", list(Mode))
def test_what_a_rule_keeps_is_answered_here_whatever_the_mode(mode: Mode) -> None:
    cloud, kept = _Watched(), Privacy(KeptBy.RULE, "patients")
    client = _client(cloud, Promise(0.1))
    outcome = _answer(client, replace(_ask(mode=mode), privacy=kept))
    assert (outcome.mode, len(outcome.shown)) == ("device-only", 60)
    assert (cloud.starts, cloud.sent) == ([], [])
    assert outcome.notes[0] == 'kept on this device by the rule "patients"'
    assert outcome.cloud_reason is CloudReason.PRIVACY
    assert outcome.made_by == [(Origin.DEVICE, 0, 60)]


def test_without_a_device_what_is_kept_here_is_refused_and_not_sent() -> None:
    cloud = _Watched()
    client = _client(cloud, Promise(0.1), engine=False)
    kept = Privacy(KeptBy.RULE, "patients")
    with pytest.raises(InvalidRequest, match='rule "patients", and there is no local'):
        _answer(client, replace(_ask(), privacy=kept))
    assert (cloud.starts, cloud.sent) == ([], [])


@pytest.mark.parametrize("cut_after", [None, 2])
def test_money_is_never_passed_by_extend_or_by_streams_after_a_cut(cut_after: int | None) -> None:
    cloud = ScriptedCloud(Script(cut_after=cut_after, cut_streams=2))
    slow = replace(PROFILE, prefill_b_s=1 / 100)  # it needs far more than the cap
    caps = CloudCaps(request_cost=0.0105, prompt_price=10.0, answer_price=100.0)
    client = _client(cloud, Promise(0.05, max_cloud_cost=0.0105), slow, caps)
    outcome = _answer(client, _ask())
    assert len(outcome.shown) == 60, "the device made the rest"
    assert cloud.starts
    paid = sum(len(start.prompt_token_ids) for start in cloud.starts) * 10e-6 + cloud.made * 1e-4
    assert paid <= 0.0105 + 1e-9
    assert outcome.cloud_cost is not None
    assert paid - 1e-9 <= outcome.cloud_cost <= 0.0105 + 1e-9
    expected = CloudReason.PLANNED if cut_after is None else CloudReason.CAP
    assert outcome.cloud_reason is expected, "only after a cut it wanted more than was left"


def test_the_answers_of_one_request_share_its_cap() -> None:
    cloud = ScriptedCloud()
    slow = replace(PROFILE, prefill_b_s=1 / 100)
    client = _client(cloud, Promise(0.05, max_cloud_tokens=8), slow)

    async def main() -> list[Outcome]:
        await client.start()
        asks = [replace(_ask(), request_id=f"r{i}", group="g") for i in range(4)]
        sessions = [client.session(ask) for ask in asks]

        async def run(session: Session) -> None:
            async for _ in session.run():
                pass

        await asyncio.gather(*(run(session) for session in sessions))
        return [session.outcome for session in sessions]

    outcomes = run_virtual(main())
    assert all(len(outcome.shown) == 60 for outcome in outcomes)
    assert 1 <= cloud.made <= 8
    _answer(client, replace(_ask(), group="h"))
    assert cloud.made > 8, "a later request has a cap of its own"


def test_a_cloud_alone_whose_cap_is_spent_leaves_the_answer_to_the_device() -> None:
    cloud, account = ScriptedCloud(), CloudUse(None)
    account.spend(lambda *_: (30, 0.0))
    caps = CloudCaps(day_tokens=30)
    client = _client(cloud, Promise(0.05), caps=caps, account=account)
    outcome = _answer(client, _ask(mode=Mode.CLOUD_ONLY))
    assert (outcome.mode, len(outcome.shown)) == ("device-only", 60)
    assert cloud.made == 0
    assert outcome.cloud_reason is CloudReason.CAP
    assert "ask again tomorrow" in outcome.notes[0]


def test_a_cap_reached_in_mid_answer_is_no_failure_of_the_cloud() -> None:
    promise = Promise(0.05, max_cloud_tokens=8)
    outcome = _answer(_client(ScriptedCloud(), promise), _ask(mode=Mode.CLOUD_ONLY))
    assert len(outcome.shown) == 60
    assert "the cloud may make no more: this device makes the rest, from token 9" in outcome.notes
    assert not any("failed" in note for note in outcome.notes)


def test_a_cap_on_money_without_a_price_is_refused_by_name() -> None:
    client = _client(ScriptedCloud(), Promise(0.05))
    with pytest.raises(ContradictoryPromises, match="--cloud-answer-price"):
        _answer(client, _ask(promise=Promise(0.05, max_cloud_cost=1.0)))


def test_an_answer_says_why_it_was_made_as_it_was() -> None:
    def reason(client: DeviceClient, ask: Ask) -> tuple[CloudReason, bool]:
        outcome = _answer(client, ask)
        return outcome.cloud_reason, outcome.sent_to_cloud

    def refuse(_: int) -> PdError:
        return CloudAuthenticationFailed("no such key")

    promise = Promise(0.05)
    assert reason(_client(_Watched(), promise), _ask()) == (CloudReason.PLANNED, True)
    alone = _ask(mode=Mode.DEVICE_ONLY)
    assert reason(_client(_Watched(), promise), alone) == (CloudReason.MODE, False)
    capped = _ask(promise=replace(promise, max_cloud_tokens=0))
    assert reason(_client(_Watched(), promise), capped) == (CloudReason.CAP, False)
    refusing = _client(_Watched(Script(refuse=refuse)), promise)
    assert reason(refusing, _ask()) == (CloudReason.FAILED, True)
    none = DeviceClient(
        cloud=None,
        engine=EmulatedDeviceEngine(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS]),
        pace_s=0.05,
        device_profile=PROFILE,
    )
    assert reason(none, _ask()) == (CloudReason.NO_CLOUD, False)


def test_which_side_made_which_positions() -> None:
    outcome = _answer(_client(_Watched(), Promise(0.05)), _ask())
    runs = outcome.made_by
    assert [run.origin for run in runs] == [Origin.CLOUD, Origin.DEVICE]
    assert [run.first for run in runs] == [0, outcome.handoff_position]
    assert runs[-1].until == 60
    assert Outcome("r", "device-only", 0, 0.1).made_by == []
