"""An emulated cloud engine: the real scheduling policy over steps that only take their time.

Slots, queue, KV blocks, prefix cache and step budget are the server's own code; only the forward
pass is replaced, by the duration its profile says, and the sampler by the rolling hash. Commands
that come during a step take effect after it, as on a real engine's thread.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pd_bench.simulation.cloud_profile import CloudProfile
from pd_core.errors import PdError, RequestExpired
from pd_core.generation import Finished, FinishReason, Load, Start
from pd_core.sampling.rolling_hash import RollingHash
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.prefix_cache import PrefixCache, block_keys, remember
from pd_server.scheduling.schedule import Schedule, Sequence
from pd_server.scheduling.scheduler import Scheduler
from pd_server.scheduling.speed_meter import SpeedMeter

__all__ = ["Receiver", "SimulatedEngine"]


class Receiver(Protocol):
    """Who is told of a request's progress."""

    def tokens(self, first_position: int, token_ids: tuple[int, ...]) -> None:
        """New tokens, in order of position."""
        ...

    def end(self, end: Finished | PdError) -> None:
        """The last word about the request."""
        ...


@dataclass(slots=True)
class _Live:
    """A request in the engine."""

    start: Start
    token_ids: list[int]
    state: RollingHash
    sequence: Sequence
    receiver: Receiver
    num_generated: int = 0
    began_at_s: float | None = None
    first_token_at_s: float | None = None
    busy_s: float = 0.0


class SimulatedEngine:
    """Steps on the running loop's clock as long as there is work.

    Args:
        profile: the cloud.
        vocab_size: token ids are below this.
        eos_token_id: ends an answer.
        seed: of the steps' spread.
    """

    def __init__(
        self, profile: CloudProfile, vocab_size: int, eos_token_id: int, seed: int
    ) -> None:
        self._profile = profile
        self._vocab_size = vocab_size
        self._eos = eos_token_id
        self._loop = asyncio.get_running_loop()
        self._random = random.Random(seed)
        self._prefixes: PrefixCache[object] = PrefixCache()
        self._budget = BlockBudget(
            profile.kv_tokens // BLOCK_TOKENS, lambda: self._prefixes.evict() is not None
        )
        self._speeds = SpeedMeter()
        for first, streams, tokens, seconds in profile.warm_up():  # a server starts with these too
            if streams == 1 and (first == 0 or tokens == 1):
                self._speeds.record(seconds, tokens if tokens > 1 else 0, int(tokens == 1))
        self._scheduler = Scheduler(
            profile.max_num_seqs,
            profile.step_tokens(),
            self._budget,
            self._prefixes,
            room_tokens=profile.room_tokens,
            spare_tokens=profile.step_cost().spare_tokens,
        )
        self._commands: list[Callable[[], None]] = []
        self._live: dict[int, _Live] = {}
        self._prefilled: list[_Live] = []  # with a prompt that is computed and not yet remembered
        self._stepping = False
        self._num_coming = 0  # submitted, and not yet known to the scheduler
        self._num_coming_tokens = 0
        self._load = Load(max_num_seqs=profile.max_num_seqs)
        self._hit_tokens = 0
        self._busy_s = self._kv_byte_s = 0.0
        self._kv_blocks_peak = 0
        self._tokens_generated = 0

    # Commands, from the streams

    def submit(self, request_id: int, start: Start, receiver: Receiver) -> None:
        """Take in a request; `request_id` is never used twice."""
        self._num_coming += 1
        self._num_coming_tokens += len(start.prompt_token_ids) + len(start.committed_token_ids)
        arrived_at_s = self._loop.time()
        self._command(lambda: self._add(request_id, start, receiver, arrived_at_s))

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit; ignored when the request is unknown."""
        self._command(lambda: self._extend(request_id, token_limit))

    def stop(self, request_id: int) -> None:
        """End a request in order after the present step; ignored when it is unknown."""
        self._command(lambda: self._stop(request_id))

    def abort(self, request_id: int) -> None:
        """Forget a request after the present step; ignored when it is unknown."""
        self._command(lambda: self._abort(request_id))

    def load(self) -> Load:
        """Return how busy it is, requests on their way included."""
        scheduler = self._scheduler
        return Load(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting + self._num_coming,
            max_num_seqs=scheduler.max_num_seqs,
            queued_prefill_tokens=scheduler.num_queued_prefill_tokens + self._num_coming_tokens,
            prefill_tokens_per_s=self._speeds.prefill_tokens_per_s,
            decode_step_s=self._speeds.decode_step_s,
            engine_busy_s=self._busy_s,
            kv_byte_s=self._kv_byte_s,
            kv_bytes_peak=self._kv_blocks_peak * BLOCK_TOKENS * self._profile.kv_bytes_per_token,
            tokens_generated=self._tokens_generated,
            kv_blocks=self._budget.num_blocks,
            kv_blocks_held=self._budget.num_held,
            kv_blocks_cached=self._budget.num_cached,
            prefix_hit_tokens=self._hit_tokens,
            num_preemptions=scheduler.num_preemptions,
        )

    def check_integrity(self) -> None:
        """Assert that slots and blocks are where they should be."""
        self._scheduler.check_integrity()
        assert len(self._live) == self._scheduler.num_running + self._scheduler.num_waiting

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        if not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._step)

    def _add(self, request_id: int, start: Start, receiver: Receiver, arrived_at_s: float) -> None:
        prefix = start.prompt_token_ids + start.committed_token_ids
        self._num_coming -= 1
        self._num_coming_tokens -= len(prefix)
        at_end = start.committed_token_ids[-1:] == (self._eos,)
        if at_end or start.first_position >= start.token_limit:
            receiver.end(Finished(FinishReason.EOS if at_end else FinishReason.LIMIT, 0))
            return
        sequence = Sequence(
            request_id,
            num_prefix_tokens=len(prefix),
            first_position=start.first_position,
            token_limit=start.token_limit,
            arrived_at_s=arrived_at_s,
            useful_for_s=start.useful_for_s,
            block_keys=block_keys(prefix, BLOCK_TOKENS, start.cache_salt),
        )
        state = RollingHash(self._vocab_size, (self._eos,), prefix)
        self._live[request_id] = _Live(start, list(prefix), state, sequence, receiver)
        self._scheduler.add(sequence)

    def _extend(self, request_id: int, token_limit: int) -> None:
        self._scheduler.extend(request_id, token_limit)

    def _stop(self, request_id: int) -> None:
        if (live := self._live.get(request_id)) is not None:
            self._finish(live, FinishReason.STOPPED)

    def _abort(self, request_id: int) -> None:
        if (live := self._live.get(request_id)) is not None:
            self._remember(live)
            self._release(live)

    # Steps

    def _step(self) -> None:
        """Apply the commands and begin a step, or fall idle."""
        commands, self._commands = self._commands, []
        for command in commands:
            command()
        for live in self._prefilled:
            if live.sequence.request_id in self._live:
                self._keep(live, live.start.prompt_token_ids + live.start.committed_token_ids)
        self._prefilled.clear()
        if not self._live:
            self._stepping = False
            return
        now_s = self._loop.time()
        schedule = self._scheduler.schedule(now_s)
        for sequence in schedule.expired:
            self._fail(self._live[sequence.request_id], _expired(sequence))
        for admission in schedule.admitted:
            self._hit_tokens += len(admission.prefix) * BLOCK_TOKENS
            live = self._live[admission.sequence.request_id]
            live.began_at_s = now_s if live.began_at_s is None else live.began_at_s
        if not schedule.chunks:  # what was queued has expired
            self._loop.call_soon(self._step)
            return
        self._kv_blocks_peak = max(self._kv_blocks_peak, self._budget.num_held)
        step_s = self._duration_s(schedule)
        # A step ends when it ends: it is no timer of a client, which may ring late.
        self._loop.call_at(now_s + step_s, self._end_step, schedule, step_s)

    def _duration_s(self, schedule: Schedule) -> float:
        profile = self._profile
        seconds = profile.step_s
        num_decodes = num_keys = 0
        for chunk in schedule.chunks:
            if chunk.decodes:
                num_decodes += 1
                num_keys += chunk.first + 1
            else:
                seconds += profile.prefill_s(chunk.first, chunk.num_tokens)
        seconds += profile.decode_s * num_decodes + profile.decode_key_s * num_keys
        return seconds * max(1.0 + profile.spread * self._random.gauss(0, 1), 0.05)

    def _end_step(self, schedule: Schedule, step_s: float) -> None:
        """Share the step's seconds, hand out its tokens, end what has ended, and step on."""
        chunks = schedule.chunks
        num_tokens = sum([chunk.num_tokens for chunk in chunks])
        num_decodes = sum([chunk.decodes for chunk in chunks])
        self._speeds.record(step_s, num_tokens - num_decodes, num_decodes)
        self._busy_s += step_s
        held_bytes = self._budget.num_held * BLOCK_TOKENS * self._profile.kv_bytes_per_token
        self._kv_byte_s += held_bytes * step_s
        share_s = step_s / num_tokens
        for chunk in chunks:
            live = self._live[chunk.sequence.request_id]
            live.busy_s += share_s * chunk.num_tokens
            position = chunk.sequence.next_position
            self._scheduler.advance(chunk)
            if chunk.samples:
                if not chunk.decodes:
                    self._prefilled.append(live)
                self._append(live, position)
        self._step()

    def _append(self, live: _Live, position: int) -> None:
        """Make one token, and end the request where that ends it."""
        state = live.state
        token_id = state.next_token(position, live.start.sampling)
        token_ids = (token_id,)
        state.extend(token_ids)
        live.token_ids.append(token_id)
        live.num_generated += 1
        self._tokens_generated += 1
        if live.first_token_at_s is None:
            live.first_token_at_s = self._loop.time()
        live.receiver.tokens(position, token_ids)
        if token_id == self._eos:
            self._finish(live, FinishReason.EOS)
        elif live.sequence.at_limit:
            self._finish(live, FinishReason.LIMIT)

    # The end of a request

    def _finish(self, live: _Live, reason: FinishReason) -> None:
        self._remember(live)
        self._release(live)
        now_s = self._loop.time()
        began_at_s = now_s if live.began_at_s is None else live.began_at_s
        first_token_at_s = now_s if live.first_token_at_s is None else live.first_token_at_s
        finished = Finished(
            reason,
            live.num_generated,
            queue_s=began_at_s - live.sequence.arrived_at_s,
            prefill_s=first_token_at_s - began_at_s,
            engine_busy_s=live.busy_s,
        )
        live.receiver.end(finished)

    def _fail(self, live: _Live, error: PdError) -> None:
        self._release(live)
        live.receiver.end(error)

    def _release(self, live: _Live) -> None:
        del self._live[live.sequence.request_id]
        self._scheduler.remove(live.sequence.request_id)

    def _remember(self, live: _Live) -> None:
        """Cache what a request has computed: whoever continues its answer begins there."""
        self._keep(live, live.token_ids[: live.sequence.num_computed_tokens])

    def _keep(self, live: _Live, token_ids: list[int] | tuple[int, ...]) -> None:
        keys = block_keys(token_ids, BLOCK_TOKENS, live.start.cache_salt)
        remember(self._prefixes, self._budget, keys, lambda index: index)


def _expired(sequence: Sequence) -> RequestExpired:
    return RequestExpired(
        f"the request was still queued after the {sequence.useful_for_s:.3f} s it was useful for; "
        "its prefill was never begun"
    )
