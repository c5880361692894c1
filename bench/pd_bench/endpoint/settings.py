"""The settings of a replay against an OpenAI-compatible server, checked before it starts."""

from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

from pd_bench.harness.bounds import check_between, check_counts, check_pace, check_timeout
from pd_bench.replay.cloud_options import Insecure
from pd_bench.replay.trace_run import TraceRun
from pd_core.errors import ConfigError
from pd_core.settings.option import Option
from pd_core.sockets.loopback import is_loopback
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["PROMPT_KINDS", "EndpointSettings"]

PROMPT_KINDS = ("ids", "text")

_MOST_TEMPERATURE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings(TraceRun):
    """Every input of a replay against an endpoint, beside those of a TraceRun.

    The stream is not paced, and without `max_prompt_tokens` no prompt is cut.

    Attributes:
        vocab_size: token ids of prompts are below this.

    Raises:
        ConfigError: a value is out of range, or the address may not be used.
    """

    url: Annotated[str, Option("An OpenAI-compatible server to replay against.", "endpoint")]
    model: Annotated[
        str | None,
        Option(f"{MODEL_HELP} {DEFAULT_MODEL} when not given; of --endpoint, its only one."),
    ] = None
    temperature: Annotated[float, Option("0 is greedy.")] = 0.0
    repeat: Annotated[int, Option("Passes; the schemes' order rotates.")] = 1
    prompts: Annotated[
        str, Option(f"What to send --endpoint: {' or '.join(PROMPT_KINDS)}.", "endpoint-prompts")
    ] = "ids"
    vocab_size: int = 32_000
    plain: Annotated[bool, Option("Only the fields of OpenAI's own API.", "endpoint-plain")] = False
    api_key: str | None = field(default=None, repr=False)
    insecure: Insecure = False

    def __post_init__(self) -> None:
        self._check_url()
        if self.prompts not in PROMPT_KINDS:
            raise ConfigError(f"unknown prompts {self.prompts!r}; known: {', '.join(PROMPT_KINDS)}")
        check_pace(self.pace_s)
        check_timeout(self.timeout_s)
        check_counts(
            {
                "--repeat": self.repeat,
                "--max-output-tokens": self.max_output_tokens,
                "--max-prompt-tokens": self.max_prompt_tokens,
            }
        )
        check_between("--temperature", self.temperature, 0, _MOST_TEMPERATURE)

    def _check_url(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--endpoint is {self.url!r}; such as http://localhost:8000/v1 or https://..."
            )
        if parts.scheme == "http" and not self.insecure and not is_loopback(parts.hostname):
            raise ConfigError(
                f"{self.url} is plaintext beyond this machine; use https, or allow it by name "
                "with --insecure"
            )

    @property
    def is_here(self) -> bool:
        """Whether the server runs on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def base_url(self) -> str:
        """The address to which "/completions" is added."""
        url = self.url.rstrip("/").removesuffix("/completions")
        return url if urlsplit(url).path.strip("/") else f"{url}/v1"
