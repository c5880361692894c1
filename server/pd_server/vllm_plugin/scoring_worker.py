"""vLLM's CPU worker that also scores prompts on request.

One layer's attention modules pass their queries to a `PromptScorer`; the keys are read from the
paged cache. Requests without scores cost one look-up a step.
"""

import logging
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl, CPUAttentionMetadata
from vllm.v1.worker.cpu_worker import CPUWorker

from pd_core.errors import EngineError
from pd_core.models.prompt_scores import score_layer
from pd_server.vllm_plugin.key_layout import KeyLayout
from pd_server.vllm_plugin.part_attention import PartAttention
from pd_server.vllm_plugin.prompt_scorer import Chunk, PromptScorer

__all__ = ["ScoringCPUWorker"]

logger = logging.getLogger(__name__)


class ScoringCPUWorker(CPUWorker):
    """See the module. The scores of a tensor-parallel rank cover only the rank's heads."""

    _scorer: PromptScorer | None = None

    def load_model(self, **options: Any) -> None:
        """Load the model, and watch the layer that scores are taken from."""
        super().load_model(**options)
        modules = self._scored_modules()
        if not modules:
            logger.warning("prompts have no scores: the model's attention is not vLLM's CPU one")
            return
        scheduler = self.vllm_config.scheduler_config
        self._scorer = PromptScorer(
            len(modules), modules[0].impl.scale, max_results=8 * scheduler.max_num_seqs
        )
        for part, module in enumerate(modules):
            _Tap(module, part, self._scorer, self.model_runner)

    def execute_model(self, scheduler_output: Any) -> Any:
        """Run a step, after noting which requests begin and end."""
        if self._scorer is not None:
            self._scorer.end(scheduler_output.finished_req_ids)
            for new in scheduler_output.scheduled_new_reqs:
                extra = getattr(new.sampling_params, "extra_args", None) or {}
                wanted = extra.get("pd", {}).get("score")
                if wanted is not None:
                    self._scorer.begin(new.req_id, wanted["tag"], wanted["num_tokens"])
        return super().execute_model(scheduler_output)

    def take_prompt_scores(self, tag: str) -> list[float] | None:
        """Return the prompt scores of the request with this tag; None: there are none."""
        return None if self._scorer is None else self._scorer.take(tag)

    def _scored_modules(self) -> list[Attention]:
        """Return the layer's attention modules in order; none if their backend is unsupported."""
        config = self.vllm_config.model_config.hf_text_config
        source = getattr(config, "skip_v1_k_source", None)
        layer = score_layer(config.num_hidden_layers, source)
        modules = [
            module
            for name, module in self.vllm_config.compilation_config.static_forward_context.items()
            if isinstance(module, Attention) and extract_layer_index(name) == layer
        ]
        known = all(isinstance(m.impl, CPUAttentionBackendImpl) for m in modules)
        return modules if known else []


class _Tap:
    """Wraps one module's attention and passes its queries to the scorer."""

    def __init__(self, module: Attention, part: int, scorer: PromptScorer, runner: Any) -> None:
        self._module = module
        self._part = part
        self._scorer = scorer
        self._runner = runner
        self._attend = module.impl.forward
        self._layout: KeyLayout | None = None
        self._broken = False
        module.impl.forward = self._forward

    def _forward(
        self,
        layer: Attention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        **more: Any,
    ) -> Tensor:
        if attn_metadata is not None and not self._broken:
            try:
                for chunk in self._chunks(query, kv_cache, attn_metadata):
                    self._scorer.observe(self._part, chunk)
            except EngineError as error:
                self._broken = True
                logger.warning("prompts have no scores: %s", error)
        out: Tensor = self._attend(layer, query, key, value, kv_cache, attn_metadata, **more)
        return out

    def _chunks(
        self, query: Tensor, kv_cache: Tensor, step: CPUAttentionMetadata
    ) -> Iterator[Chunk]:
        """Yield the step's part of each request to score.

        The step's own keys are already in the cache: vLLM writes them before it attends.
        """
        for row, request_id in enumerate(self._runner.input_batch.req_ids):
            if self._scorer.wanted(request_id):
                first, end = (int(i) for i in step.query_start_loc[row : row + 2])
                start = int(step.seq_lens[row]) - (end - first)
                block_ids = step.block_table[row]

                def keys(num_tokens: int, block_ids: Tensor = block_ids) -> Tensor:
                    return self._keys(kv_cache, block_ids, num_tokens)

                yield Chunk(request_id, start, query[first:end], keys)

    def _keys(self, kv_cache: Tensor, block_ids: Tensor, num_tokens: int) -> Tensor:
        """Read one sequence's keys: (G, n, D).

        Args:
            kv_cache: a key unit (num_blocks, G, block, D), or vLLM's layout (num_blocks, G, block,
                2 * D), whose blocks have all keys of a head before its values.
        """
        if not isinstance(self._module, PartAttention):
            num_blocks, num_kv_heads, block_tokens, _ = kv_cache.shape
            pairs = kv_cache.view(num_blocks, num_kv_heads, 2 * block_tokens, -1)
            kv_cache = pairs[:, :, :block_tokens]
        *_, block_tokens, head_dim = kv_cache.shape
        if self._layout is None:
            self._layout = KeyLayout(block_tokens, head_dim, kv_cache.dtype, self._module.isa)
        num_blocks = -(-num_tokens // block_tokens)
        return self._layout.read(kv_cache, block_ids[:num_blocks], num_tokens)
