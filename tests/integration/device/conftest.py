"""Fixtures of tests that carry an answer with a real engine."""

import pytest

from pd_device_client.session.handoff import Handoff


@pytest.fixture
def forced_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this the session asks the cloud for more while a test holds the device back."""
    monkeypatch.setattr(Handoff, "tokens_for_no_seam", lambda _: 0)
    monkeypatch.setattr(Handoff, "cloud_should_finish", lambda _: False)
