"""A plan as a picture in plain characters: cloud, device and reader on one time line."""

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.plan import Plan

__all__ = ["plan_picture"]

_WAITS, _READS, _MAKES, _SHOWS, _ENDED = " ", "=", "#", "|", " "
_NAME_WIDTH = 7


def plan_picture(plan: Plan, output_tokens: int, step_s: tuple[float, float], width: int) -> str:
    """Return three lines of `width` columns, a time scale, and what the marks mean.

    Args:
        plan: the plan.
        output_tokens: the expected length of the answer.
        step_s: seconds between tokens of the cloud and of the device.
        width: columns for the whole.
    """
    columns = max(width - _NAME_WIDTH - 1, 20)
    cloud_step_s, device_step_s = step_s
    pace_s = max(plan.expected.largest_gap_s, plan.pace_s)
    begins_s = plan.first_token_s
    made = min(plan.cloud_tokens, output_tokens)
    end_s = begins_s + max(output_tokens - 1, 1) * pace_s
    cloud_end_s = begins_s + max(made - 1, 0) * cloud_step_s
    end_s = max(end_s, cloud_end_s, plan.ready_s)

    def column(at_s: float) -> int:
        return min(int(at_s / end_s * columns), columns)

    def line(*pieces: tuple[float, str]) -> str:
        """Draw pieces, each up to its instant."""
        drawn = ""
        for until_s, mark in pieces:
            upto = column(until_s)
            least = len(drawn) + (until_s > 0 and mark != _WAITS and len(drawn) < columns)
            drawn += mark * (max(upto, least) - len(drawn))
        return drawn.ljust(columns)

    rows = []
    if plan.mode is not Mode.DEVICE_ONLY:
        cloud = line((begins_s, _READS), (cloud_end_s, _MAKES))
        if plan.takes_turns:
            cloud = _in_turns(cloud, column(plan.ready_s), columns)
        rows.append(("cloud", cloud))
    if plan.mode is not Mode.CLOUD_ONLY:
        left_s = max(output_tokens - made, 0) * device_step_s
        rows.append(
            ("device", line((plan.ready_s, _READS), (min(plan.ready_s + left_s, end_s), _MAKES)))
        )
    rows.append(("reader", line((begins_s, _WAITS), (end_s, _SHOWS))))
    handoff = plan.expected.handoff
    if handoff is not None and handoff < output_tokens:
        at = min(column(begins_s + handoff * pace_s), columns - 1)
        rows[-1] = ("reader", rows[-1][1][:at] + "H" + rows[-1][1][at + 1 :])
    scale = f"0{f'{end_s:.1f} s'.rjust(columns - 1)}"
    drawn = [f"{name:<{_NAME_WIDTH}} {marks}".rstrip() for name, marks in rows]
    legend = f"{_READS} reads the prompt   {_MAKES} makes tokens   {_SHOWS} shown"
    legend += "   H from here on the device's" if "H" in rows[-1][1] else ""
    return "\n".join([*drawn, f"{'':<{_NAME_WIDTH}} {scale}", f"{'':<{_NAME_WIDTH}} {legend}"])


def _in_turns(cloud: str, ready: int, columns: int) -> str:
    """Mark, by the way, that the cloud comes back now and then."""
    marks = list(cloud)
    for at in range(max(ready + 4, 0), columns, 8):
        marks[at] = _MAKES
    return "".join(marks)
