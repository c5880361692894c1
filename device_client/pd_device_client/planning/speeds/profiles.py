"""Profiles: the speed of a device or a cloud, and the link between them.

A speed profile predicts; throttled and emulated engines sleep for the predicted time. Every table
labels results that were measured with one (DESIGN 8).
"""

from dataclasses import dataclass

from pd_core.errors import ConfigError

__all__ = [
    "DEVICE_PROFILES",
    "LINK_PROFILES",
    "TOKEN_BYTES",
    "LinkProfile",
    "SpeedProfile",
    "device_profile",
    "link_profile",
]


@dataclass(frozen=True, slots=True)
class SpeedProfile:
    """Seconds to prefill n tokens, a + b n + c n^2, and seconds per decoded token.

    Attributes:
        name: the profile's name in tables.
        source: where the figures come from.
        prefill_a_s: seconds per prefill, whatever its length.
        prefill_b_s: seconds per token.
        prefill_c_s: seconds per token squared (attention).
        decode_s: seconds per decoded token with an empty context.
        spread: relative standard deviation of every duration.
        decode_l_s: more seconds per decoded token for each token of context.
    """

    name: str
    source: str
    prefill_b_s: float
    decode_s: float
    prefill_a_s: float = 0.0
    prefill_c_s: float = 0.0
    spread: float = 0.0
    decode_l_s: float = 0.0

    @property
    def usual_decode_s(self) -> float:
        """D: a profile has no stalls to guard against."""
        return self.decode_s

    @property
    def chunk_tokens(self) -> None:
        """The passes are the engine's, not the profile's."""
        return

    def prefill_s(self, num_tokens: int) -> float:
        """P(n) of DESIGN 4: seconds to prefill the first n tokens of a prompt."""
        n = num_tokens
        return self.prefill_a_s + self.prefill_b_s * n + self.prefill_c_s * n * n if n > 0 else 0.0

    def pass_s(self, first_position: int, num_tokens: int) -> float:
        """Seconds of one forward pass over tokens first_position .. first_position + num_tokens.

        A pass costs at least one decode step: the weights are read once however few the tokens.
        """
        if num_tokens <= 0:
            return 0.0
        if num_tokens == 1:
            return self.decode_s + self.decode_l_s * first_position
        end = first_position + num_tokens
        return max(self.prefill_s(end) - self.prefill_s(first_position), self.decode_s)


TOKEN_BYTES = 3
"""Of a token's id on the wire."""


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """A network link between device and cloud.

    Attributes:
        name: the profile's name in tables.
        source: where the figures come from.
        rtt_s: round-trip time.
        jitter_s: standard deviation of the one-way delay.
        bytes_per_s: bandwidth each way; None means unlimited.
        loss: share of packets lost; each loss costs one retransmission after an RTT.
    """

    name: str
    source: str
    rtt_s: float
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    loss: float = 0.0


_OURS = "chosen by us as a round figure; not a measurement of a product"
_BENCH = "llama.cpp, {}: https://github.com/{}"


def _published(
    name: str, what: str, where: str, rates: tuple[tuple[int, float], ...], decode_rate: float
) -> SpeedProfile:
    """Return a published device's profile.

    Args:
        name: the profile's.
        what: device, model and weights, in words.
        where: the page below github.com.
        rates: prompt lengths with the tokens a second at them; one, or two of which b and c follow.
        decode_rate: tokens a second.
    """
    (n, rate), *rest = rates
    b_s, c_s = 1 / rate, 0.0
    for longer, slower in rest:
        c_s = (1 / slower - 1 / rate) / (longer - n)
        b_s -= c_s * n
    source = _BENCH.format(what, where)
    return SpeedProfile(name, source, b_s, 1 / decode_rate, prefill_c_s=c_s)


DEVICE_PROFILES: dict[str, SpeedProfile] = {
    p.name: p
    for p in (
        SpeedProfile(
            "slow",
            "the slow device of docs/background/benchmarks.md: 400 tok/s prefill, 20 tok/s decode",
            1 / 400,
            0.05,
        ),
        SpeedProfile("phone", _OURS, 1 / 150, 0.08, spread=0.1),
        SpeedProfile("laptop", _OURS, 1 / 600, 0.04, spread=0.05),
        SpeedProfile("edge-box", _OURS, 1 / 1500, 0.03, spread=0.05),
        _published(
            "phone-cpu-1.7b",
            "Snapdragon 8 Elite Gen 5, processor, Qwen3-1.7B Q4_0",
            "a-ghorbani/pocketpal-ai/pull/702",
            ((256, 99.9),),
            30.4,
        ),
        _published(
            "phone-gpu-1.7b",
            "Snapdragon 8 Elite Gen 5, Adreno 840, Qwen3-1.7B Q4_0",
            "a-ghorbani/pocketpal-ai/pull/702",
            ((256, 629.0),),
            28.1,
        ),
        _published(
            "laptop-i3-3b",
            "Framework 12, i3-1315U, 2 threads, Llama-3.2-3B Q4_K_M",
            "geerlingguy/sbc-reviews/issues/107",
            ((512, 28.67), (4096, 23.91)),
            11.05,
        ),
        _published(
            "arm-board-1b",
            "Radxa Dragon Q8B, 8 threads, TinyLlama-1.1B Q4_K_M",
            "geerlingguy/ai-benchmarks/issues/54",
            ((512, 194.49), (4096, 132.65)),
            38.81,
        ),
        _published(
            "mac-mini-m4-8b",
            "Mac mini M4, Metal, Llama-3.1-8B Q4_K_M",
            "brand-o/normiebench/issues/3",
            ((512, 224.81),),
            20.87,
        ),
        _published(
            "macbook-m1-max-8b",
            "MacBook Pro M1 Max, Metal, Llama-3.1-8B Q4_K_M",
            "brand-o/normiebench/issues/40",
            ((512, 499.58),),
            46.2,
        ),
    )
}

# Published are a round trip and the speed upwards, the slower direction; the jitter is ours.
_MEDIANS = "median round trip and upload of {}: {}; jitter " + _OURS

LINK_PROFILES: dict[str, LinkProfile] = {
    p.name: p
    for p in (
        LinkProfile("loopback", "no emulation: the real loopback device", 0.0),
        LinkProfile("lan", _OURS, 0.002, 0.0002, 60e6),
        LinkProfile("wifi", _OURS, 0.02, 0.004, 6e6),
        LinkProfile("lte", _OURS, 0.06, 0.012, 1.5e6, 0.002),
        LinkProfile(
            "5g-us",
            _MEDIANS.format(
                "T-Mobile US, first half of 2024, by Ookla",
                "https://rcrwireless.com/20240717/5g/t-mobile-us-first-in-5g-mobile-att-in-home-internet-ookla",
            ),
            0.047,
            0.009,
            14.56e6 / 8,
        ),
        LinkProfile(
            "mobile-us",
            _MEDIANS.format(
                "T-Mobile US, all technologies, second quarter of 2023, by Ookla",
                "https://techblog.comsoc.org/tag/ookla/",
            ),
            0.054,
            0.011,
            12.16e6 / 8,
        ),
        LinkProfile(
            "satellite",
            _MEDIANS.format(
                "Starlink in the US, fourth quarter of 2021, by Ookla",
                "https://www.mobileworldlive.com/featured-content/top-three/starlink-hits-us-download-speeds-of-100-mbp-s",
            ),
            0.04,
            0.01,
            12.02e6 / 8,
        ),
    )
}


def device_profile(name: str) -> SpeedProfile:
    """Return the named device profile, or raise ConfigError listing the known ones."""
    if name not in DEVICE_PROFILES:
        raise ConfigError(
            f"unknown device profile {name!r}; known profiles: {', '.join(sorted(DEVICE_PROFILES))}"
        )
    return DEVICE_PROFILES[name]


def link_profile(name: str) -> LinkProfile:
    """Return the named link profile, or raise ConfigError listing the known ones."""
    if name not in LINK_PROFILES:
        raise ConfigError(
            f"unknown link profile {name!r}; known profiles: {', '.join(sorted(LINK_PROFILES))}"
        )
    return LINK_PROFILES[name]
