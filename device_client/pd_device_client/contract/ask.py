"""One request to a device: built once by the terminal or the API, and never copied."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pd_core.errors import InvalidRequest
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.privacy import Privacy
from pd_device_client.contract.promise import Mode, Promise

__all__ = ["Ask", "Mode", "Promise", "draw_request_id"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt to answer, and how.

    Attributes:
        request_id: names the request in logs and results.
        prompt_token_ids: the prompt, at least one token.
        max_tokens: token limit of the answer.
        sampling: how tokens are chosen, the seed included.
        stop_strings: the answer ends before the first of these in its text; special tokens may be
            named, shown or not.
        stop_token_ids: the answer ends with the first of these tokens, which has no text.
        continues_prompt: the answer's text continues the prompt's, so a space at its beginning
            stays; False: it is a text of its own, as a message is.
        skip_special_tokens: give special tokens no text.
        cache_salt: requests with different salts never share cached prefixes on the cloud.
        mode: which sides generate the answer.
        promise: to the reader; None uses the client's default.
        cloud_tokens: a fixed k instead of the planner's, for comparisons; used only in pd-device
            and where both sides can take the request.
        asked_s: when the reader asked, on the loop's clock; the answer's times count from here.
            None: they count from the start of the session.
        read_along: show every token at its time; False: show the rest at once when the answer is
            complete, for a reader that gets it in one piece.
        watched: report events as well as shown tokens.
        messages: the chat that the prompt was made from, for a cloud that takes text; empty: none.
        privacy: the judgement on its words; None: nobody judged, and a client with rules keeps it.
        group: asks of one request have the same, and share its caps; "": it is alone.

    Raises:
        InvalidRequest: the prompt is empty, or the token limit is below 1.
        ContradictoryPromises: the mode cannot keep the promise.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    continues_prompt: bool = False
    skip_special_tokens: bool = True
    cache_salt: str = ""
    mode: Mode = Mode.PD_DEVICE
    promise: Promise | None = None
    cloud_tokens: int | None = None
    asked_s: float | None = None
    read_along: bool = True
    watched: bool = False
    messages: tuple[Mapping[str, Any], ...] = ()
    privacy: Privacy | None = None
    group: str = ""

    def __post_init__(self) -> None:
        if not self.prompt_token_ids:
            raise InvalidRequest("the prompt is empty; it needs at least one token")
        if self.max_tokens < 1:
            raise InvalidRequest(f"max_tokens is {self.max_tokens}; it must be 1 or more")
        if self.promise is not None:
            self.promise.check_mode(self.mode)


def draw_request_id() -> str:
    """Return a new id for a request that has none."""
    return uuid.uuid4().hex[:12]
