"""Waiting for a form leaves no word of it in the log, whatever comes of it."""

import asyncio
import gc
from concurrent.futures import Future
from typing import Any

from pd_core.errors import InvalidConstraint
from pd_core.grammar.matcher import Matcher
from pd_device_client.client.form_check import compiled_within


async def test_a_form_that_cannot_be_used_is_not_logged_by_the_loop() -> None:
    told, form = list[object](), Future[Any]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    matcher = Matcher(form, lambda same: same, 10, [1])
    loop.call_soon(form.set_exception, InvalidConstraint("secret"))
    await compiled_within(matcher, 20.0)
    assert matcher.ready
    del matcher, form  # what was waited for lives as long as these
    gc.collect()
    await asyncio.sleep(0)
    assert told == []
