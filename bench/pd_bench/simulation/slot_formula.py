"""The expected gain of a smaller cloud share, by arithmetic (DESIGN 8).

If slots are the bound, a request costs the seconds it holds one: its prefill and its tokens' steps.
If compute is the bound, it costs the work of its prefill and its share of its tokens' steps, which
is small in a large batch; so the prefill weighs more, and the gain is smaller.
"""

from dataclasses import dataclass

from pd_bench.simulation.cloud.cloud_profile import CloudProfile

__all__ = ["MeanLoad", "SlotGain", "compute_gain", "slot_gain"]


@dataclass(frozen=True, slots=True)
class MeanLoad:
    """The cloud's work for a mean request.

    Attributes:
        prompt_tokens: tokens of the prompt.
        output_tokens: tokens that the cloud generates.
    """

    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class SlotGain:
    """The gain if slots are the bound.

    Attributes:
        gain: slot seconds of a whole answer over those of the cloud's share of it.
        seconds: the slot seconds of a whole answer.
    """

    gain: float
    seconds: float


def slot_gain(cloud: CloudProfile, whole: MeanLoad, share: MeanLoad, num_slots: int) -> SlotGain:
    """Return (T + c E[N]) / (T + c E[min(N, k)]): T the prefill, c the step with all slots full.

    Args:
        cloud: the cloud.
        whole: a whole mean answer.
        share: the cloud's part of it.
        num_slots: streams that decode together.
    """
    chunk = cloud.step_tokens()
    prefill_s = cloud.prefill_s(0, round(whole.prompt_tokens))
    prefill_s += cloud.step_s * -(-whole.prompt_tokens // chunk)
    seconds_whole = prefill_s + _step_s(cloud, whole, num_slots) * whole.output_tokens
    seconds_share = prefill_s + _step_s(cloud, share, num_slots) * share.output_tokens
    return SlotGain(seconds_whole / seconds_share, seconds_whole)


def compute_gain(cloud: CloudProfile, whole: MeanLoad, share: MeanLoad) -> float:
    """Return the same without a step's base cost, which a large batch shares."""
    prefill_s = cloud.prefill_s(0, round(whole.prompt_tokens))

    def token_s(load: MeanLoad) -> float:
        return cloud.decode_s + cloud.decode_key_s * (load.prompt_tokens + load.output_tokens / 2)

    return (prefill_s + token_s(whole) * whole.output_tokens) / (
        prefill_s + token_s(share) * share.output_tokens
    )


def _step_s(cloud: CloudProfile, load: MeanLoad, num_slots: int) -> float:
    keys = num_slots * (load.prompt_tokens + load.output_tokens / 2)
    return cloud.decode_step_s(num_slots, round(keys))
