"""The kinds of OpenAI-compatible servers: how each is told, and what it can do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pd_core.needs import Need

__all__ = ["APIS", "AUTO", "CHAT", "LLAMA_SERVER", "OLLAMA", "VLLM", "Service", "service_of"]

AUTO = "auto"
APIS = (AUTO, "vllm", "llama-server", "chat")
"""What `--cloud-api` may be."""


@dataclass(frozen=True, slots=True)
class Service:
    """A kind of server.

    Attributes:
        name: as shown to users.
        gives_ids: it takes prompts as token ids and gives the answer's.
        continues: it continues a chat's last message, if that is the assistant's.
        tokenize: the path of its tokenizer, for a comparison; "" without one.
        new_limit_name: its chats take `max_completion_tokens` for `max_tokens`.
        biases: it takes a logit_bias by this device's ids.
    """

    name: str
    gives_ids: bool = False
    continues: bool = False
    tokenize: str = ""
    new_limit_name: bool = False
    biases: bool = False

    @property
    def lacks(self) -> frozenset[Need]:
        """What it is not asked for: it has none of it, or by other rules than this device."""
        lacks = {Need.FORM, Need.LOGPROBS, Need.MIN_TOKENS}
        if self.gives_ids:
            lacks.add(Need.DRY)
        else:
            lacks.add(Need.PROMPT)
        if not (self.gives_ids and self.biases):
            lacks.add(Need.BIAS)
        return frozenset(lacks)

    def as_text(self) -> "Service":
        """Return what it is for a device with another tokenizer, to which its ids mean nothing."""
        return replace(self, gives_ids=False)


VLLM = Service("vllm", gives_ids=True, continues=True, tokenize="/tokenize", biases=True)
LLAMA_SERVER = Service("llama-server", gives_ids=True, continues=True, tokenize="/tokenize")
OLLAMA = Service("ollama", continues=True)
LM_STUDIO = Service("lm-studio")
OPENROUTER = Service("openrouter", continues=True)
OPENAI = Service("openai", new_limit_name=True)
CHAT = Service("chat")

_NAMED = {"vllm": VLLM, "llama-server": LLAMA_SERVER, "chat": CHAT}
_OWNERS = {"vllm": VLLM, "llamacpp": LLAMA_SERVER, "organization_owner": LM_STUDIO}
_HOSTS = {"openai.com": OPENAI, "openrouter.ai": OPENROUTER}


def service_of(api: str, host: str, model: Mapping[str, Any]) -> Service | None:
    """Return the kind of a server, or None: it must be asked further.

    Args:
        api: one of APIS.
        host: the server's name.
        model: its entry of the model that is used; may be empty.
    """
    if api != AUTO:
        return _NAMED[api]
    for name, service in _HOSTS.items():
        if host == name or host.endswith(f".{name}"):
            return service
    return _OWNERS.get(str(model.get("owned_by")))
