import gc

import pytest

from pd_core.process.quick_imports import quick_imports


@pytest.mark.slow
def test_garbage_is_left_alone_inside_only() -> None:
    frozen = gc.get_freeze_count()
    try:
        with quick_imports():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
        with pytest.raises(ImportError), quick_imports():
            raise ImportError("a library is missing")
        assert gc.isenabled()
    finally:
        gc.unfreeze()
