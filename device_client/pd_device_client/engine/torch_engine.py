"""The local engine: a torch model on one worker thread, off the event loop.

A thread is enough: torch releases the GIL inside its operators. One pass is one job, so a cancel
waits for at most one pass; the chunk size is chosen for that latency.

With other numbers of threads or another chunk the bits are the same, as far as the model's numerics
promise anything.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.generation import ModelCard, TokenLogprobs
from pd_core.grammar.grammars import Grammars
from pd_core.host.low_priority import step_back
from pd_core.models import KVCache, Segment
from pd_core.models.thread_trial import thread_counts, try_threads
from pd_core.sampling_params import SamplingParams
from pd_core.speculation.prompt_lookup import PromptLookup
from pd_core.speculation.speculation import Speculation
from pd_device_client.engine.kept_prefixes import KeptPrefixes
from pd_device_client.engine.prompt_reading import prompt_passes
from pd_device_client.engine.sequence_tokens import SequenceTokens
from pd_device_client.engine.threads import Threads
from pd_device_client.engine.tuning import Tuning

__all__ = ["KEPT_KV_BYTES", "TorchLocalEngine"]

KEPT_KV_BYTES = 256 << 20
"""The default of `kept_kv_bytes` for conversations."""


class TorchLocalEngine:
    """A model in this process.

    Args:
        loaded: the model with its tokenizer and fingerprints.
        chunk_tokens: tokens per prefill pass.
        num_threads: torch threads of the worker; None leaves torch's default.
        kept_kv_bytes: limit of the KV caches kept for conversations' next turns; 0 keeps none, as
            measurements need.
        speculate: most tokens of an answer guessed from its text and checked in one pass; 0: none.
            Without reproducible numerics none are guessed, as they could change the answer.
        low_priority: other programs come first, where the system can do that.

    Attributes:
        grammars: compiles the forms of its answers.
        speculation: how many tokens were guessed, and how many of them rightly.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        chunk_tokens: int = 128,
        num_threads: int | None = None,
        kept_kv_bytes: int = 0,
        speculate: int = 0,
        low_priority: bool = False,
    ) -> None:
        self._loaded = loaded
        self.speculation = Speculation(speculate if loaded.numerics.reproducible else 0)
        self._kept = KeptPrefixes[KVCache](kept_kv_bytes)
        self._worker = ThreadPoolExecutor(
            1,
            thread_name_prefix="local-engine",
            initializer=step_back if low_priority else None,
        )
        if num_threads is not None:
            self._worker.submit(torch.set_num_threads, num_threads).result()
        self._threads = Threads()
        config = loaded.model.config
        self.grammars = Grammars(loaded.tokenizer, loaded.num_token_ids, loaded.eos_token_ids)
        self.chunk_tokens = chunk_tokens
        self._card = ModelCard(
            name=f"{loaded.name} (torch)",
            engine="torch",
            fingerprints=loaded.fingerprints,
            vocab_size=loaded.model.num_token_ids,
            eos_token_ids=loaded.eos_token_ids,
            max_context_tokens=config.max_context_tokens,
            logprobs=True,
            grammar_library=self.grammars.library,
        )

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        return self._card

    @property
    def leaves_out(self) -> bool:
        """Yes: queries and keys are rotated by whatever positions they are given."""
        return True

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Number of the prompt's first tokens that are cached from earlier answers."""
        return self._kept.shared_tokens(prompt_token_ids)

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> "_TorchSequence":
        """Open a sequence; if opened with a prompt, its cache is kept when it is closed."""
        return _TorchSequence(
            *(self._loaded, self._worker, sampling, prompt_token_ids, self._kept),
            *(self.speculation, self._threads, self.grammars),
        )

    def measure(self, most_threads: int | None) -> Tuning:
        """Time a few passes, with all numbers of threads up to the most; None: with the present.

        It waits for them, so call it from a thread that may.
        """

        def measured() -> Tuning:
            present, model = torch.get_num_threads(), self._loaded.model
            counts = [present]
            if most_threads is not None:
                counts = thread_counts(self._loaded.numerics, min(present, most_threads))
            try:
                return Tuning(tuple(try_threads(model, counts)))
            finally:
                torch.set_num_threads(present)

        return self._worker.submit(measured).result()

    async def prompt_logprobs(self, token_ids: Sequence[int], count: int) -> list[TokenLogprobs]:
        """See `PromptReader`; answers may have their passes between two of these."""
        passes = prompt_passes(self._loaded, token_ids, count, self.chunk_tokens)
        loop, told = asyncio.get_running_loop(), list[TokenLogprobs]()
        while (some := await loop.run_in_executor(self._worker, next, passes, None)) is not None:
            told += some
        return told

    def use(self, threads: Threads) -> None:
        """Run the passes of sequences opened from now on with these threads."""
        self._threads = threads

    async def close(self) -> None:
        """Let the running pass finish and end the worker."""
        self._worker.shutdown(wait=False, cancel_futures=True)


class _TorchSequence:
    """One sequence; its passes run one after another on the engine's worker.

    A pass over one token of an answer may also compute guesses at those that follow. Each guess
    that is the very token sampled before it stands in the cache already when it is fed, and the
    token after it is known: such a feed needs no pass. Whoever feeds sees no difference but time.

    Where positions of the prompt are left out, the cache has no place for them, and only what
    stands before the first of them is kept for a next turn: all after it differs from a prefill.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        worker: ThreadPoolExecutor,
        sampling: SamplingParams,
        prompt_token_ids: Sequence[int],
        kept: KeptPrefixes[KVCache],
        speculation: Speculation,
        threads: Threads,
        grammars: Grammars,
    ) -> None:
        self._loaded = loaded
        self._worker = worker
        self._threads = threads
        self._kept = kept if prompt_token_ids else None
        self._speculation = speculation if prompt_token_ids else Speculation(0)
        self._source, num_kept = kept.take(prompt_token_ids)
        self._cache = loaded.model.make_cache(1)
        self._tokens = SequenceTokens(
            *(sampling, loaded.eos_token_ids, loaded.model.config.max_context_tokens),
            *(prompt_token_ids[:num_kept], prompt_token_ids),
            None if sampling.constraint is None else grammars.matcher(sampling.constraint),
        )
        self._lookup = PromptLookup()  # of tokens that were fed
        # Sampled tokens that come next; all but the last are in the cache.
        self._ahead: list[int] = []
        self._told: list[TokenLogprobs] = []  # one for each of them, where sampling asks

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._told[0] if self._told else None

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        known = 0
        while known < min(len(token_ids), len(self._ahead) - 1):
            if token_ids[known] != self._ahead[known]:
                break
            known += 1
        self._tokens.num_tokens += known
        self._ahead, self._told = self._ahead[known:], self._told[known:]
        if rest := list(token_ids[known:]):
            decodes = len(rest) == 1 and sample_position is not None
            most = self._speculation.draft_tokens() if decodes else 0
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            at = None if positions is None else tuple(positions[known:])
            sampled, num_drafted = await loop.run_in_executor(
                self._worker, self._pass, rest, sample_position, most, at
            )
            self._ahead = [token_id for token_id, _ in sampled]
            self._told = [told for _, told in sampled if told is not None]
            if decodes:
                seconds = loop.time() - began_s
                self._speculation.passed(num_drafted, len(self._ahead) - 1, seconds)
        self._tokens.hold(token_ids)
        return None if sample_position is None else self._ahead[0]

    def close(self) -> None:
        # A running pass writes only after the held tokens, so the kept prefix does not change.
        if self._kept is not None and self._source is None and self._tokens.held:
            self._kept.keep(self._tokens.held, self._cache)
        self._kept = None

    def _pass(
        self,
        token_ids: list[int],
        sample_position: int | None,
        most: int,
        positions: tuple[int, ...] | None,
    ) -> tuple[list["_Sampled"], int]:
        """Run one forward pass on the worker's thread.

        Args:
            token_ids: what to feed.
            sample_position, positions: as in `feed`.
            most: the most tokens to guess.

        Returns:
            The sampled tokens (the next one, and one for each right guess), and how many were
            guessed.
        """
        first = self._tokens.next_position
        if positions is None:
            positions = tuple(range(first, first + len(token_ids)))
        assert len(positions) == len(token_ids), "each token has a position"
        assert positions[0] >= first, "positions rise"
        most = min(most, self._tokens.room_for(positions[-1] + 1 - first))
        self._threads.set_for(len(token_ids))
        with self._tokens.computing(len(token_ids)), torch.inference_mode():
            draft = self._fed(token_ids, positions, most)
            hidden = self._forward([*token_ids, *draft], positions)
            if sample_position is None:
                return [], 0
            logits = self._loaded.model.logits(hidden[-1 - len(draft) :])
            return self._sampled(logits, draft, sample_position), len(draft)

    def _fed(self, token_ids: list[int], positions: tuple[int, ...], most: int) -> list[int]:
        """Note what is fed, and return guesses at what follows."""
        self._tokens.feed(token_ids, positions)
        if not most:
            return []
        self._lookup.extend(self._tokens.ids[self._lookup.num_tokens :])
        return self._lookup.draft(most)

    def _forward(self, token_ids: list[int], positions: tuple[int, ...]) -> torch.Tensor:
        """Compute tokens, of which those without a position are guesses: (T, hidden)."""
        model, start = self._loaded.model, self._tokens.num_tokens
        self._cache.reserve(start + len(token_ids))
        if self._source is not None:  # not in `open`, so that copying is off the event loop
            self._cache.copy_prefix(self._source, start)
            self._source = None
        guessed = range(positions[-1] + 1, positions[-1] + 1 + len(token_ids) - len(positions))
        segment = Segment(self._cache, start, len(token_ids), (*positions, *guessed))
        hidden = model.forward(torch.tensor(token_ids), [segment])
        self._tokens.passed(positions)
        return hidden

    def _sampled(self, logits: torch.Tensor, draft: list[int], position: int) -> list["_Sampled"]:
        """Return the token at a position, and those after it as long as the guesses are right."""
        sampled = list[_Sampled]()
        for row, guess in zip(logits, [*draft, None], strict=True):
            sampled.append(self._tokens.sample(row[None], position + len(sampled)))
            if (token_id := sampled[-1][0]) != guess:
                return sampled
            self._tokens.ids.append(token_id)
        return sampled


_Sampled = tuple[int, TokenLogprobs | None]
