"""llama.cpp in a process of its own, as it is measured: no torch beside it."""

from pathlib import Path

from pd_device_client.engine.llama_cpp_model import LlamaCppModel

__all__ = ["LlamaCppMeasured"]


class LlamaCppMeasured:
    """llama.cpp with one sequence.

    Args:
        path: the GGUF file.
        num_threads: its threads.
        context_tokens: room of the sequence, whose memory is taken here.
        chunk: most tokens of a pass.
    """

    def __init__(self, path: Path, num_threads: int, context_tokens: int, chunk: int) -> None:
        self._model = LlamaCppModel(
            path, context_tokens=context_tokens, pass_tokens=chunk, num_threads=num_threads
        )
        self._held = 0
        self.weight_bytes = self._model.weight_bytes
        self.kv_bytes_per_token = self._model.kv_bytes_per_token

    def run(self, start: int, num_tokens: int) -> None:
        """Put tokens through at this position, up to the last one's logits; later ones are gone."""
        if start < self._held:
            self._model.clear(0, start)
        ids = [i % self._model.vocab_size for i in range(start, start + num_tokens)]
        self._model.run(0, start, ids, wants_logits=True)
        self._held = start + num_tokens
