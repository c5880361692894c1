"""How many answers a device carries and prepares at once."""

import pytest

from pd_core.errors import QueueFull
from pd_device_client.api.http.places import Places


def test_what_is_prepared_holds_a_place_too() -> None:
    places = Places(2)
    assert not places.busy
    with places.taking(1), places.entering():
        assert places.busy
        with pytest.raises(QueueFull, match="2 answers"), places.entering():
            pass
        with pytest.raises(QueueFull, match="2 answers"), places.taking(1):
            pass
    assert not places.busy


def test_every_answer_of_a_request_has_a_place() -> None:
    places = Places(4)
    with places.taking(3):
        assert places.taken == 3
        with pytest.raises(QueueFull, match="3 of at most 4 answers"), places.taking(2):
            pass
        with places.taking(1):
            assert places.taken == 4
    with places.taking(8):  # alone, it gets all there are
        assert places.taken == 8
        with pytest.raises(QueueFull):
            places.check()
    assert places.taken == 0


def test_a_place_is_free_again_after_a_failure() -> None:
    places = Places(1)
    with pytest.raises(KeyError), places.entering():
        raise KeyError
    with places.taking(1):
        assert places.taken == 1
    assert places.taken == 0
