"""The work of a replay: trace rows turned into requests, the same for every scheme."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pd_bench.harness.bounds import WARM_UP_TOKENS
from pd_bench.replay.prompts import PromptMaker, Prompts, TextPieces
from pd_bench.results.result import CutRows
from pd_bench.traces.row import TraceRow
from pd_core.errors import ConfigError
from pd_core.generation import ModelCard
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ask import Ask

__all__ = ["Work", "Workload"]

_WARM_UP = TraceRow(line=0, arrival_s=0.0, prompt_tokens=256, output_tokens=WARM_UP_TOKENS)


@dataclass(frozen=True, slots=True)
class Work:
    """One row to replay.

    Attributes:
        id: index among the replayed rows, from 0; -1 for the warm-up.
        line: line in the trace; 0 for the warm-up.
        arrival_s: seconds since the first row.
        prompt_token_ids: made ids, or a piece of a text.
        output_tokens: the forced length of the answer.
        session: its conversation, whose rows share one device; None: a device of its own.
    """

    id: int
    line: int
    arrival_s: float
    prompt_token_ids: tuple[int, ...]
    output_tokens: int
    session: str | None = None


class Workload:
    """Cuts rows to the server's limits and makes their prompts and requests.

    Args:
        model: the server's model, with a context no larger than the devices'.
        most_output_tokens: the server's limit of an answer.
        seed: for prompts and sampling.
        temperature: 0 means greedy.
        max_prompt_tokens: longer prompts are cut; None: the room in the context.
        max_output_tokens: longer answers are cut; also the token limit of all requests.
        text_token_ids: prompts are pieces of this text; empty: ids are made up.

    Raises:
        ConfigError: the limits leave no room.
    """

    def __init__(
        self,
        model: ModelCard,
        most_output_tokens: int,
        *,
        seed: int,
        temperature: float,
        max_prompt_tokens: int | None,
        max_output_tokens: int,
        text_token_ids: Sequence[int] = (),
    ) -> None:
        if not model.eos_token_ids:
            raise ConfigError(
                "the model has no end-of-sequence token, so no answer can be forced to the "
                "length of its row; take another model"
            )
        if not 1 <= max_output_tokens <= most_output_tokens:
            raise ConfigError(
                f"--max-output-tokens is {max_output_tokens}; it must lie between 1 and the "
                f"server's limit of {most_output_tokens}"
            )
        room = model.max_context_tokens - max_output_tokens
        if max_prompt_tokens is None:
            max_prompt_tokens = room
        if not 1 <= max_prompt_tokens <= room:
            raise ConfigError(
                f"--max-prompt-tokens is {max_prompt_tokens}; it must lie between 1 and {room}, "
                f"the context of {model.max_context_tokens} tokens less --max-output-tokens"
            )
        self.max_prompt_tokens = max_prompt_tokens
        self.max_output_tokens = max_output_tokens
        self._prompts: Prompts = (
            TextPieces(text_token_ids, seed)
            if text_token_ids
            else PromptMaker(model.vocab_size, model.eos_token_ids, seed)
        )
        self.max_context_tokens = model.max_context_tokens
        self._seed = seed
        self._temperature = temperature

    def works(self, rows: Iterable[TraceRow]) -> list[Work]:
        """Return the rows' work, in order."""
        return [self.work(index, row) for index, row in enumerate(rows)]

    def warm_up(self) -> Work:
        """Return a request that shares no prompt with any row."""
        return self.work(-1, _WARM_UP)

    def work(self, index: int, row: TraceRow) -> Work:
        """Return the work of one row, with its index in the replay."""
        prompt = self._prompts.prompt(row, min(row.prompt_tokens, self.max_prompt_tokens))
        output_tokens = min(row.output_tokens, self.max_output_tokens)
        return Work(index, row.line, row.arrival_s, prompt, output_tokens, row.session)

    def cut_rows(self, rows: Iterable[TraceRow]) -> CutRows:
        """Count the rows that `works` shortens."""
        listed = list(rows)
        return CutRows(
            rows=len(listed),
            prompt=sum(row.prompt_tokens > self.max_prompt_tokens for row in listed),
            output=sum(row.output_tokens > self.max_output_tokens for row in listed),
            max_prompt_tokens=self.max_prompt_tokens,
            max_output_tokens=self.max_output_tokens,
            max_context_tokens=self.max_context_tokens,
        )

    def request(self, work: Work, scheme: str, salt: str) -> Ask:
        """Return the request of a row.

        Only the samplers get the row's length (`forced_length`); planner, controller and admission
        see the common token limit.
        """
        return Ask(
            request_id=f"{salt}-{scheme}-{work.id}" if work.id >= 0 else f"{salt}-{scheme}-warm-up",
            prompt_token_ids=work.prompt_token_ids,
            max_tokens=self.max_output_tokens,
            sampling=SamplingParams(
                temperature=self._temperature, seed=self._seed, forced_length=work.output_tokens
            ),
            cache_salt=salt,
        )
