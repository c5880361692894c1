"""The link to any OpenAI-compatible server: the cloud that people already have."""

import logging
from importlib.metadata import version

from pd_core.generation import (
    Fingerprints,
    Limits,
    Load,
    ModelCard,
    ServerInfo,
    Start,
)
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.openai.device_model import DeviceModel
from pd_device_client.cloud.openai.dialects import dialect_of
from pd_device_client.cloud.openai.endpoint import Endpoint
from pd_device_client.cloud.openai.openai_stream import OpenAiStream
from pd_device_client.cloud.openai.probe import Found, described, listed, probe

__all__ = ["OpenAiCloudLink"]

logger = logging.getLogger(__name__)

_ANY_CONTEXT = 2**31 - 1  # of a server that does not say, without a model here


class OpenAiCloudLink:
    """A link to one server.

    Args:
        address: a URL, the key, the authority to trust, and which model to ask for.

    Raises:
        ConfigError: the address may not be used.
    """

    def __init__(self, address: CloudAddress) -> None:
        self._address = address
        self._endpoint = Endpoint(
            address.target,
            api_key=address.api_key,
            tls_ca=address.tls_ca,
            insecure=address.insecure,
            client=address.client,
        )
        self._device: DeviceModel | None = None
        self._found: Found | None = None

    def use_model(self, card: ModelCard, tokenizer: Tokenizer) -> None:
        """Hear what this device runs; what was found before is found again with it."""
        self._device = DeviceModel(card, tokenizer)
        self._found = None

    async def info(self) -> ServerInfo:
        """Return the server's card; the first time, ask the server what it is.

        Raises:
            PdError: it does not answer, refuses the key, or has no such model.
        """
        if self._found is None:
            return self._card(await self._known())
        await self._look(self._found)
        return self._card(await self._known())

    async def open(self, start: Start) -> OpenAiStream:
        """Open a stream; errors come from its events.

        Raises:
            PdError: it is not known what the server is, and it does not say.
        """
        found = await self._known()
        dialect = dialect_of(found, self._device)
        return OpenAiStream(
            self._endpoint, dialect, found, self._device, start, on_failure=self._forget
        )

    async def close(self) -> None:
        """Close every connection; open streams break."""
        await self._endpoint.close()

    def _forget(self) -> None:
        self._found = None

    async def _known(self) -> Found:
        if self._found is None:
            address = self._address
            found = await probe(self._endpoint, address.model, address.api, self._device)
            logger.info("the cloud is %s: %s", found.service.name, "; ".join(found.abilities))
            self._found = found
        return self._found

    async def _look(self, found: Found) -> None:
        """Make a small call; where another model runs now, what was found is forgotten."""
        if not found.service.gives_ids:  # a hosted service's list may have megabytes
            await self._endpoint.touch("models")
            return
        entries = listed(await self._endpoint.get("models"))
        entry = next((each for each in entries if each["id"] == found.model), {})
        if described(entry) != found.entry:
            logger.warning("the cloud's model has changed; it is looked at again")
            self._found = None

    def _card(self, found: Found) -> ServerInfo:
        device = self._device
        context = found.max_context_tokens
        if context is None:
            context = _ANY_CONTEXT if device is None else device.card.max_context_tokens
        same = device is not None and found.same_tokenizer
        model = ModelCard(
            name=found.model,
            engine=found.service.name,
            fingerprints=Fingerprints(
                tokenizer=device.card.fingerprints.tokenizer if device is not None and same else ""
            ),
            # Every id that the session sees is this device's.
            vocab_size=_ANY_CONTEXT if device is None else device.card.vocab_size,
            eos_token_ids=() if device is None else device.card.eos_token_ids,
            max_context_tokens=context,
        )
        return ServerInfo(
            version("pd-device"),
            model,
            Limits(context, 0, 0),
            Load(),
            sealed=False,
            exactness=found.exactness,
            abilities=found.abilities,
            lacks=found.service.lacks,
        )
