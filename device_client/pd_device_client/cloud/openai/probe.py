"""What an OpenAI-compatible server is, and what can be done with it: asked once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pd_core.errors import (
    CloudAuthenticationFailed,
    InvalidRequest,
    ProtocolError,
    RequestError,
)
from pd_device_client.cloud.openai.device_model import DeviceModel
from pd_device_client.cloud.openai.endpoint import Endpoint
from pd_device_client.cloud.openai.services import CHAT, LLAMA_SERVER, OLLAMA, Service, service_of

__all__ = ["Found", "described", "listed", "probe"]

_MOST_NAMES = 12  # in a message
# Spaces, digits, letters of several scripts, marks, a character of several code points.
_SAMPLE = (
    "The sky above\n\n  the port\u2026 12345 was na\u00efve: \u00abok\u00bb \u4e16\u754c "
    '\U0001f44d\U0001f3fd \tdon\'t, {"a": [1, 2]}'
)
_SPECIAL_TOKENS = 4  # of the sample


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        service: its kind, and what it can do with this device.
        model: the name of its model.
        entry: what it says of the model; a change means another model.
        max_context_tokens: its limit of prompt and answer; None: it does not say.
        same_tokenizer: whether its tokenizer gave this device's ids; None: it cannot be asked.
    """

    service: Service
    model: str
    entry: Mapping[str, Any] = field(default_factory=dict)
    max_context_tokens: int | None = None
    same_tokenizer: bool | None = None

    @property
    def exactness(self) -> str:
        """The most that an answer shared with it can be."""
        return "consistent" if self.service.gives_ids else "text"

    @property
    def abilities(self) -> tuple[str, ...]:
        """What was found, in words."""
        service = self.service
        if service.gives_ids:
            compared = (
                "its tokenizer gives this device's ids"
                if self.same_tokenizer
                else "its tokenizer could not be asked, so only its streams' text checks their ids"
            )
            words = ["token ids both ways", compared, "its weights cannot be compared"]
        else:
            words = ["text only: the handoff continues the text"]
            if self.same_tokenizer is False:
                words.append("its tokenizer gives other ids than this device's")
            words.append(
                "it can continue an answer that it began"
                if service.continues
                else "it cannot continue an answer, so it begins one and this device ends it"
            )
        return tuple(words)


async def probe(
    endpoint: Endpoint, model: str | None, api: str, device: DeviceModel | None
) -> Found:
    """Ask a server what it is.

    Args:
        endpoint: the server.
        model: the name of the model to use; None: its only one.
        api: one of `services.APIS`.
        device: what this device runs; None: nothing is compared.

    Raises:
        InvalidRequest: it has no model, or several and none is named.
        PdError: it does not answer.
    """
    entries = await _entries(endpoint, model)
    entry = _entry(entries, model)
    name = model if model is not None else str(entry["id"])
    like = entry or next(iter(entries), {})  # a variant of a model need not be listed
    service = service_of(api, endpoint.host, like) or await _asked_service(endpoint)
    context = await _context(endpoint, service, entry)
    same = None
    if service.tokenize and device is not None:
        same = await _same_tokenizer(endpoint, service, name, device)
    if same is False:
        service = service.as_text()
    return Found(service, name, described(entry), context, same)


def described(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a model's entry what stays as long as the model does."""
    return {key: entry[key] for key in ("id", "root", "max_model_len", "meta") if key in entry}


async def _entries(endpoint: Endpoint, wanted: str | None) -> list[Mapping[str, Any]]:
    try:
        return listed(await endpoint.get("models"))
    except RequestError:
        if wanted is None:
            raise
        return []  # some services have no list


def _entry(entries: list[Mapping[str, Any]], wanted: str | None) -> Mapping[str, Any]:
    """Return the model's entry; empty if a named one is not listed."""
    if wanted is None and len(entries) != 1:
        names = [str(entry["id"]) for entry in entries]
        shown = ", ".join(names[:_MOST_NAMES]) or "none"
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        raise InvalidRequest(
            f"the cloud has these models: {shown}{more}; name one with --cloud-model"
        )
    named = (entry for entry in entries if wanted is None or entry["id"] == wanted)
    return next(named, {})


def listed(found: Any) -> list[Mapping[str, Any]]:
    """Return the entries of a list of models.

    Raises:
        ProtocolError: it is none.
    """
    entries = found.get("data") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries
    ):
        raise ProtocolError(
            "the cloud's list of models cannot be read; is it the address of an OpenAI-compatible "
            "server?"
        )
    return entries


async def _asked_service(endpoint: Endpoint) -> Service:
    """Return the kind of a server that its list of models does not tell."""
    for path, service in (("/props", LLAMA_SERVER), ("/api/version", OLLAMA)):
        found = await _optional(endpoint, path)
        if isinstance(found, dict) and found.keys() & {"default_generation_settings", "version"}:
            return service
    return CHAT


async def _context(endpoint: Endpoint, service: Service, entry: Mapping[str, Any]) -> int | None:
    if service is LLAMA_SERVER:
        props = await _optional(endpoint, "/props")
        settings = props.get("default_generation_settings") if isinstance(props, dict) else None
        entry = settings if isinstance(settings, dict) else {}
    for name in ("max_model_len", "n_ctx", "context_length", "max_context_length"):
        size = entry.get(name)
        if type(size) is int and 0 < size < 2**31:
            return size
    return None


async def _same_tokenizer(
    endpoint: Endpoint, service: Service, model: str, device: DeviceModel
) -> bool | None:
    """Return whether the server's tokenizer gives this device's ids; None: it has no such call."""
    specials = sorted(device.tokenizer.special_tokens.items())[:_SPECIAL_TOKENS]
    text = _SAMPLE + "".join(content for _, content in specials) + "x"
    if service is LLAMA_SERVER:
        body = {"content": text, "add_special": False, "parse_special": True}
    else:
        body = {"model": model, "prompt": text, "add_special_tokens": False}
    found = await _optional(endpoint, service.tokenize, body)
    ids = found.get("tokens") if isinstance(found, dict) else None
    return ids == device.tokenizer.encode(text) if isinstance(ids, list) else None


async def _optional(endpoint: Endpoint, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON of a call that not every server has; None without it."""
    try:
        return await (endpoint.get(path) if body is None else endpoint.post(path, body))
    except (RequestError, CloudAuthenticationFailed):
        return None
