"""How many answers a device carries and prepares at once."""

import pytest

from pd_core.errors import QueueFull
from pd_device_client.api.places import Places


def test_what_is_prepared_holds_a_place_too() -> None:
    places = Places(2)
    assert not places.busy
    with places.taking(), places.entering():
        assert places.busy
        with pytest.raises(QueueFull, match="2 answers"), places.entering():
            pass
        with pytest.raises(QueueFull, match="2 answers"), places.taking():
            pass
    assert not places.busy


def test_a_place_is_free_again_after_a_failure() -> None:
    places = Places(1)
    with pytest.raises(KeyError), places.entering():
        raise KeyError
    with places.taking():
        assert places.taken == 1
    assert places.taken == 0
