"""What can be done with a group of requests, and what each way costs a cloud.

A group is one class of devices and one range of prompt lengths. An option is a number k of cloud
tokens and a keep ratio, or one side alone. For each it is known which of the group's past requests
it would have served within the promise, and what they would have taken of the cloud (DESIGN 4).
"""

import itertools
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pd_bench.fleet_planning.device_class import DeviceClass
from pd_bench.fleet_planning.load_level import LoadLevel, Waits, prefill_work_s
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_core.errors import ConfigError
from pd_device_client.contract.ask import Mode
from pd_device_client.planning.speeds.profiles import TOKEN_BYTES

__all__ = ["RESOURCES", "FleetPromise", "Option", "RequestGroup", "groups_of"]

RESOURCES = ("slots", "KV cache", "compute")

_KEEP_RATIOS = (1.0, 0.75, 0.5, 0.25)
# A class is cut by prompt length at these quantiles: the longest differ most.
_CUTS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 15 / 16, 31 / 32, 63 / 64)
_MOST_SAMPLES = 48  # past requests that stand for a group
_MARGIN = 0.9  # of what is promised: forecasts are not exact
# Spreads that are guarded against: of one pass; and of the passes' mean, as the device forecasts.
_GUARDED_SPREADS, _LEAST_SPREADS = 2.4, 1.5
_PASS_TOKENS = 128
_DENSE_TOKENS = 32  # every k up to here is tried, and above every k that is an eighth more

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FleetPromise:
    """The promise to every reader.

    Attributes:
        ttft_s: the latest first token.
        pace_s: the pace that tokens are shown at when they are there.
        largest_gap_s: the largest gap.
        target: share of the requests for which both are to be kept.
        least_keep_ratio: the quality floor: of a prompt at least this share is kept.

    Raises:
        ConfigError: a value is no number or out of range, or two contradict each other.
    """

    ttft_s: float
    pace_s: float
    largest_gap_s: float
    target: float = 0.99
    least_keep_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("ttft", self.ttft_s), ("pace", self.pace_s)):
            if not 0 < value < float("inf"):
                raise ConfigError(f"the promised {name} is {value}; it must be seconds above 0")
        if not self.pace_s <= self.largest_gap_s < float("inf"):
            raise ConfigError(
                f"the promised largest gap is {self.largest_gap_s}; it contradicts a pace of "
                f"{self.pace_s:g} s, at which every gap is at least as long"
            )
        if not 0 < self.target < 1:
            raise ConfigError(f"the target is {self.target}; it must lie above 0 and below 1")
        if not 0 < self.least_keep_ratio <= 1:
            raise ConfigError(
                f"the least keep ratio is {self.least_keep_ratio}; it must lie above 0 and be 1 "
                "at most"
            )

    @property
    def gap_s(self) -> float:
        """The gap to plan with: what is allowed beyond it is for a device later than forecast."""
        return (self.pace_s + self.largest_gap_s) / 2


@dataclass(frozen=True, slots=True)
class Option:
    """A way to serve requests.

    Attributes:
        mode: which sides make the answer.
        cloud_tokens: k, of the group's longest prompts and in proportion of shorter ones; 0 for the
            device alone, the longest answer for the cloud alone.
        keep_ratio: rho.
    """

    mode: Mode
    cloud_tokens: int
    keep_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class _AtLevel:
    """What does not change while waits and traffic at a level are brought together."""

    prefill_s: Vector
    slot_s: Vector
    loads: Vector


@dataclass(frozen=True)
class RequestGroup:
    """Requests of one class whose prompts are of similar length.

    Attributes:
        devices: the class.
        longest_prompt: the longest prompt of the group; None: any beyond the other groups.
        share: of all arrivals.
        lengths: of past requests that stand for it, as [request, (prompt, answer)].
        promise: to its readers.
        cloud: that serves it.
    """

    devices: DeviceClass
    longest_prompt: int | None
    share: float
    lengths: NDArray[np.int64]
    promise: FleetPromise
    cloud: CloudProfile
    _levels: dict[tuple[float, float], "_AtLevel"] = field(default_factory=dict, repr=False)

    @cached_property
    def options(self) -> tuple[Option, ...]:
        """Every option that could be of use: the device alone, the cloud alone, k and rho."""
        ratios = [rho for rho in _KEEP_RATIOS if rho >= self.promise.least_keep_ratio]
        if self.promise.least_keep_ratio not in ratios:
            ratios.append(self.promise.least_keep_ratio)
        whole = int(self._answers.max())
        return (
            Option(Mode.DEVICE_ONLY, 0),
            Option(Mode.CLOUD_ONLY, whole),
            *(Option(Mode.PD_DEVICE, k, rho) for rho in ratios for k in self._worthwhile(rho)),
        )

    def kept(self, level: LoadLevel, waits: Waits) -> Vector:
        """Return for each option the share of the requests whose promise it keeps at this load."""
        left_s = self.promise.ttft_s - self._network_s - self._at(level).prefill_s
        in_time = 1 - waits.longer_than(left_s)
        by_cloud = self._even @ in_time * (level.step_s <= self.promise.gap_s)
        kept = np.where(self._uses_cloud, by_cloud, self._even.sum(axis=1))
        return np.asarray(kept / len(self.lengths))

    def loads(self, level: LoadLevel) -> Vector:
        """Return for each option and resource the mean seconds that a request takes of it.

        The cloud is thought to be as slow as the level allows. Of the KV cache it is the share that
        is held times the seconds.
        """
        return self._at(level).loads

    def slot_s(self, level: LoadLevel) -> Vector:
        """Return for each option and request the seconds that it holds a slot."""
        return self._at(level).slot_s

    def _at(self, level: LoadLevel) -> "_AtLevel":
        key = (level.work, level.slots)
        if key not in self._levels:
            self._levels[key] = self._seen_at(level)
        return self._levels[key]

    def _seen_at(self, level: LoadLevel) -> "_AtLevel":
        cloud, made, n = self.cloud, self._made, self._prompts
        prefill_s = level.prefill_s(n)
        slot_s = np.where(made > 0, prefill_s + (made - 1) * level.step_s, 0.0)
        held = np.ceil((n + made) / cloud.room_tokens) * cloud.room_tokens
        token_s = cloud.decode_s + cloud.decode_key_s * (n + made / 2)
        work_s = self.work_s + made * token_s
        taken = (slot_s, slot_s * held / cloud.kv_tokens, work_s)
        loads = np.stack([seconds.mean(axis=1) for seconds in taken], axis=1)
        return _AtLevel(prefill_s, slot_s, loads)

    @cached_property
    def work_s(self) -> Vector:
        """For each option and request the engine's seconds for the prompt."""
        return np.where(self._made > 0, prefill_work_s(self.cloud, self._prompts), 0.0)

    @cached_property
    def _prompts(self) -> Vector:
        return self.lengths[:, 0].astype(float)

    @cached_property
    def _answers(self) -> Vector:
        return self.lengths[:, 1].astype(float)

    @cached_property
    def _made(self) -> Vector:
        """Tokens that the cloud makes, for each option and request."""
        limits = [
            self._limits(option.cloud_tokens)
            if option.mode is Mode.PD_DEVICE
            else np.full(len(self.lengths), float(option.cloud_tokens))
            for option in self.options
        ]
        return np.asarray(np.minimum(self._answers, np.stack(limits)))

    @cached_property
    def whole_prompt(self) -> int:
        """The prompt length that a group's k is meant for."""
        return self.longest_prompt or int(self.lengths[:, 0].max())

    def _limits(self, cloud_tokens: int) -> Vector:
        """Return k of each request."""
        return np.asarray(np.ceil(cloud_tokens * self._prompts / self.whole_prompt))

    @cached_property
    def _uses_cloud(self) -> NDArray[np.bool_]:
        return np.array([option.mode is not Mode.DEVICE_ONLY for option in self.options])

    @cached_property
    def _even(self) -> NDArray[np.bool_]:
        """Whether the pace would be kept, for each option and request, once tokens come."""
        return np.stack([self._is_kept(option) for option in self.options])

    def _is_kept(self, option: Option) -> NDArray[np.bool_]:
        if option.mode is Mode.CLOUD_ONLY:
            return np.ones(len(self.lengths), dtype=bool)
        if option.mode is Mode.PD_DEVICE:
            return self._is_even(option.cloud_tokens, option.keep_ratio)
        first_s = self._device_s(self._prompts) + self._device_step_s
        is_steady = (self._answers <= 1) | (self._device_step_s <= self.promise.gap_s)
        return np.asarray((first_s <= _MARGIN * self.promise.ttft_s) & is_steady)

    def _worthwhile(self, rho: float) -> list[int]:
        """Return the numbers of cloud tokens at which more requests see an even pace."""
        found: list[int] = []
        most, before, k = int(self._answers.max()), 0, 1
        while k < most:
            kept = int(self._is_even(k, rho).sum())
            if kept > before:
                found.append(k)
                before = kept
            k += 1 if k < _DENSE_TOKENS else k // 8
        return found

    @cached_property
    def _network_s(self) -> Vector:
        link = self.devices.link
        sent_s = 0.0 if link.bytes_per_s is None else TOKEN_BYTES / link.bytes_per_s
        return np.asarray(link.rtt_s + 2 * link.jitter_s + sent_s * self._prompts)

    @cached_property
    def _idle_first_s(self) -> Vector:
        """The earliest that a first token can come from the cloud."""
        idle = LoadLevel(self.cloud, 0.0, 0.0)
        return np.asarray(self.devices.link.rtt_s + idle.prefill_s(self._prompts))

    @property
    def _device_step_s(self) -> float:
        device = self.devices.device
        return device.decode_s * (1 + _LEAST_SPREADS * device.spread)

    def _device_s(self, num_tokens: Vector) -> Vector:
        d, n = self.devices.device, num_tokens
        seconds = d.prefill_a_s + d.prefill_b_s * n + d.prefill_c_s * n * n
        guarded = 1 + d.spread * np.maximum(
            _GUARDED_SPREADS / np.sqrt(np.ceil(np.maximum(self._prompts, 1) / _PASS_TOKENS)),
            _LEAST_SPREADS,
        )
        return np.asarray(np.where(n > 0, seconds, 0.0) * guarded)

    def _is_even(self, cloud_tokens: int, rho: float) -> NDArray[np.bool_]:
        """Return of each request whether k cloud tokens carry it until its device is ready.

        The cloud's first token is thought to come as early as it can: one that comes later gives
        the device more time, not less.
        """
        gap_s, first_s, n = self.promise.gap_s, self._idle_first_s, self._prompts
        k = self._limits(cloud_tokens)
        prompt_s = self._device_s(n)
        absorb_s = np.maximum(self._device_s(n + k) - prompt_s, self._device_step_s)
        if rho < 1:
            # What the device has prefilled by then stays; of the rest it prefills a share.
            done = np.minimum(first_s / np.maximum(prompt_s, 1e-12), 1.0) * n
            kept_s = self._device_s(done + rho * (n - done)) - self._device_s(done)
            prompt_s = np.where(done < n, first_s + kept_s, prompt_s)
        ready_s = prompt_s + absorb_s + self._device_step_s
        rest = np.maximum(self._answers - k - 1, 0)
        no_seam = first_s + k * gap_s >= ready_s
        to_the_end = first_s + (k + rest) * gap_s >= ready_s + rest * self._device_step_s
        return np.asarray((self._answers <= k) | (no_seam & to_the_end))


def groups_of(
    classes: tuple[DeviceClass, ...], cloud: CloudProfile, promise: FleetPromise
) -> list[RequestGroup]:
    """Return the groups of a fleet: each class by ranges of prompt lengths."""
    return [group for devices in classes for group in _groups_of_class(devices, cloud, promise)]


def _groups_of_class(
    devices: DeviceClass, cloud: CloudProfile, promise: FleetPromise
) -> list[RequestGroup]:
    lengths = np.array(sorted(devices.lengths), dtype=np.int64)
    prompts = lengths[:, 0]
    cuts = {int(np.quantile(prompts, q)) for q in _CUTS}
    in_time = _longest_alone(devices, promise, int(prompts.max()))
    edges = sorted(e for e in {*cuts, in_time} if prompts.min() <= e < prompts.max())
    bounds = [0, *np.searchsorted(prompts, edges, side="right"), len(lengths)]
    groups = []
    for index, (begin, end) in enumerate(itertools.pairwise(bounds)):
        if begin == end:
            continue
        rows = lengths[begin:end]
        step = -(-len(rows) // _MOST_SAMPLES)
        sample = np.concatenate([rows[::step], rows[-1:]])
        groups.append(
            RequestGroup(
                devices,
                edges[index] if index < len(edges) else None,
                devices.share * len(rows) / len(lengths),
                sample,
                promise,
                cloud,
            )
        )
    return groups


def _longest_alone(devices: DeviceClass, promise: FleetPromise, most: int) -> int:
    """Return the longest prompt whose first token the device alone makes in time."""
    device = devices.device
    least, beyond = 0, most + 1
    while beyond - least > 1:
        middle = (least + beyond) // 2
        first_s = (
            device.prefill_s(middle) * (1 + _GUARDED_SPREADS * device.spread) + device.decode_s
        )
        if first_s <= _MARGIN * promise.ttft_s:
            least = middle
        else:
            beyond = middle
    return least
