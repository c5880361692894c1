"""A cloud's profile: how long its steps take and what it has room for. By name, or from a file.

A step that decodes some streams and prefills chunks of others takes

    a + sum over chunks of (b n + c ((p + n)^2 - p^2)) + sum over decodes of (d + e l)

seconds: a for any step, b and c for n prefilled tokens from position p on, d for each decoded
stream and e for each of the l tokens in its KV cache. One chunk of n tokens alone takes
a + b n + c n^2, and a decode step of a batch a + (d + e l) times its size.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field, ValidationError

from pd_bench.results.document_part import DocumentPart
from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file
from pd_core.generation import Fingerprints, Limits, Load, ModelCard, ServerInfo

if TYPE_CHECKING:
    from pd_server.scheduling.step_cost import StepCost

_WARM_UP_CHUNK = 64
_WARM_UP_FAR = 2048
_WARM_UP_STREAMS = 8

__all__ = ["CLOUD_PROFILES", "CloudProfile", "read_cloud_profile"]


class CloudProfile(DocumentPart):
    """A cloud's speeds and bounds.

    Attributes:
        name: its name in tables.
        source: where the figures come from.
        step_s: a, seconds of any step.
        prefill_token_s: b, seconds per prefilled token.
        prefill_token2_s: c, seconds per prefilled token squared (attention).
        decode_s: d, seconds per decoded stream.
        decode_key_s: e, seconds per decoded stream and token in its KV cache.
        spread: relative standard deviation of a step's seconds.
        message_s: seconds from a step's end to its token leaving the machine.
        kv_bytes_per_token: KV cache bytes of a token.
        kv_tokens: room of the KV cache, of running requests and cached prefixes together.
        room_tokens: tokens by which a request's KV cache grows at a time.
        max_num_seqs: slots.
        max_num_batched_tokens: tokens computed in one step; None: chosen by the speed, as the
            server does.
        max_num_waiting: requests queued before new ones are refused.
        max_context_tokens: prompt and answer together.
        max_output_tokens: the highest token limit of a request.
    """

    name: str
    source: str
    step_s: float = Field(ge=0)
    prefill_token_s: float = Field(ge=0)
    prefill_token2_s: float = Field(default=0.0, ge=0)
    decode_s: float = Field(default=0.0, ge=0)
    decode_key_s: float = Field(default=0.0, ge=0)
    spread: float = Field(default=0.0, ge=0, le=1)
    message_s: float = Field(default=0.0, ge=0)
    kv_bytes_per_token: int = Field(ge=0)
    kv_tokens: int = Field(ge=64)
    room_tokens: int = Field(default=64, ge=64, multiple_of=64)
    max_num_seqs: int = Field(ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=2)
    max_num_waiting: int = Field(ge=0)
    max_context_tokens: int = Field(ge=128)
    max_output_tokens: int = Field(ge=1)

    def info(self, vocab_size: int, eos_token_ids: tuple[int, ...]) -> ServerInfo:
        """Return what such a server would say of itself; one request must fit the KV cache."""
        room = self.kv_tokens // self.room_tokens * self.room_tokens
        context = min(self.max_context_tokens, room)
        output = min(self.max_output_tokens, context)
        return ServerInfo(
            "simulated",
            ModelCard(
                self.name,
                "simulated",
                Fingerprints(),
                vocab_size,
                eos_token_ids,
                context,
                "rolling-hash",
                logprobs=True,
            ),
            Limits(output, self.max_num_seqs, self.max_num_waiting),
            Load(),
        )

    def prefill_s(self, first: int, num_tokens: int) -> float:
        """Return the seconds a chunk adds to its step."""
        end = first + num_tokens
        pairs = end * end - first * first
        return self.prefill_token_s * num_tokens + self.prefill_token2_s * pairs

    def chunk_s(self, first: int, num_tokens: int) -> float:
        """Return the seconds of a step that computes only this chunk of a prompt."""
        return self.step_s + self.prefill_s(first, num_tokens)

    def decode_step_s(self, num_streams: int, num_keys: int) -> float:
        """Return the seconds of a step that decodes streams with num_keys keys in all."""
        return self.step_s + self.decode_s * num_streams + self.decode_key_s * num_keys

    def step_cost(self) -> "StepCost":
        """Return the cost a server would fit to its own start-up measurements."""
        from pd_server.scheduling.step_cost import StepCost, StepSample

        return StepCost.fitted([
            StepSample(streams, streams * tokens, streams * tokens * (first + tokens), seconds)
            for first, streams, tokens, seconds in self.warm_up()
        ])  # fmt: skip

    def warm_up(self) -> list[tuple[int, int, int, float]]:
        """Return a server's start-up measurements: position, streams, tokens of each, seconds."""
        far = min(_WARM_UP_FAR, self.max_context_tokens - _WARM_UP_CHUNK)
        found = []
        for first in (0, far):
            found.append((first, 1, _WARM_UP_CHUNK, self.chunk_s(first, _WARM_UP_CHUNK)))
            for streams in (1, _WARM_UP_STREAMS):
                seconds = self.decode_step_s(streams, streams * (first + 1))
                found.append((first, streams, 1, seconds))
        return found

    def step_tokens(self) -> int:
        """Return the token budget of a step."""
        return self.max_num_batched_tokens or self.step_cost().step_tokens(self.max_num_seqs)


# Weights and KV cache are read once a step at 70 % of the memory's bandwidth, and a prefilled
# token takes 2 FLOP a parameter at half of the peak: typical shares, not measurements.
_BY_ARITHMETIC = (
    "arithmetic, not a measurement: 8e9 parameters and 128 KiB of KV a token in bf16 at 70 % of "
    "{bandwidth} TB/s and half of {peak} TFLOP/s"
)


def _gpu(name: str, bandwidth: float, peak: float, kv_tokens: int) -> CloudProfile:
    """Return an 8B model on one GPU with this bandwidth (TB/s) and peak (TFLOP/s)."""
    bytes_per_s, flop_per_s = 0.7e12 * bandwidth, 0.5e12 * peak
    kv_bytes = 128 * 1024  # 32 layers, 8 KV heads of 128, K and V, 2 bytes
    layers_width = 32 * 4096
    return CloudProfile(
        name=name,
        source=_BY_ARITHMETIC.format(bandwidth=bandwidth, peak=peak),
        step_s=2 * 8e9 / bytes_per_s,
        prefill_token_s=2 * 8e9 / flop_per_s,
        prefill_token2_s=2 * layers_width / flop_per_s,  # 4 FLOP, for half of all pairs
        decode_s=2 * 8e9 / flop_per_s,
        decode_key_s=kv_bytes / bytes_per_s,
        spread=0.05,
        kv_bytes_per_token=kv_bytes,
        kv_tokens=kv_tokens,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        max_num_waiting=1024,
        max_context_tokens=131_072,
        max_output_tokens=4096,
    )


CLOUD_PROFILES: Final = {
    profile.name: profile
    for profile in (
        _gpu("gpu-8b", bandwidth=3.35, peak=990.0, kv_tokens=393_216),
        _gpu("small-gpu-8b", bandwidth=0.86, peak=242.0, kv_tokens=131_072),
    )
}


def read_cloud_profile(name_or_file: str) -> CloudProfile:
    """Return a named profile, or one from a JSON file (as written by `pd-bench profile`).

    Raises:
        ConfigError: neither a known name nor a readable profile; the message names the field.
    """
    if name_or_file in CLOUD_PROFILES:
        return CLOUD_PROFILES[name_or_file]
    path = Path(name_or_file)
    try:
        content = json.loads(read_text_file(path))
    except OSError as error:
        raise ConfigError(
            f"{name_or_file!r} is no cloud profile: known names are "
            f"{', '.join(sorted(CLOUD_PROFILES))}, and as a file it cannot be read: "
            f"{error.strerror}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a JSON document: {error}") from None
    try:
        return CloudProfile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: not a cloud profile: {where}: {first['msg']}") from None
