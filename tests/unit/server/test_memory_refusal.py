"""A server refuses what does not fit before it loads the model."""

import pytest
import torch

from pd_core.checkpoints import loading
from pd_core.errors import ModelError
from pd_core.store.model_names import DEFAULT_MODEL
from pd_server import command
from pd_server.config import EngineConfig


def test_a_model_and_caches_that_do_not_fit_are_refused_unloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(loading, "load_model", load)
    build = command._engine_builder(EngineConfig(DEFAULT_MODEL, kv_cache_mib=1 << 30))
    with pytest.raises(ModelError, match=r"kept for KV caches.*lower --kv-cache-mib"):
        build()
