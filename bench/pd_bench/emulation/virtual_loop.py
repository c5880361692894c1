"""An event loop on a virtual clock: it jumps to the next timer, so that waiting costs nothing.

Code that runs on it takes time only from the loop, so it cannot tell it from a real one. Anything
outside the virtual clock is an error: threads, executors, sockets, and a loop with nothing
scheduled, which is a deadlock. Calls of one instant run in the order in which they were scheduled,
so the same program does the same thing every time.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, NoReturn, TypeVar

__all__ = ["Deadlock", "VirtualLoop", "VirtualTimeError", "run_virtual"]

T = TypeVar("T")

# Cancelled timers (timeouts that were not needed) are removed once there are this many, and more of
# them than of the others.
_SWEEP_FROM = 1000
_NAMED_TASKS = 5
_CLEAN_UP_ROUNDS = 3


class VirtualTimeError(RuntimeError):
    """The program used something outside the virtual clock."""


class Deadlock(VirtualTimeError):
    """Nothing is scheduled, and tasks still wait: nothing can ever wake them."""


class _Call(asyncio.TimerHandle):
    """A scheduled call; lighter than asyncio's own, and ordered by its place in the heap."""

    # What asyncio's constructor would set beside these is read in its debug mode only.
    def __init__(
        self,
        at_s: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: "VirtualLoop",
        context: Context | None,
    ) -> None:
        self._when = at_s
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback, self._args = None, ()
            self._loop.note_cancelled()


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time moves only when everything that is due has run.

    Args:
        start_s: its initial time.
        lag_s: returns how late the next timer of `call_later` (a sleep) fires; None: all on time.
    """

    def __init__(self, start_s: float = 0.0, lag_s: Callable[[], float] | None = None) -> None:
        super().__init__()
        self._lag_s = lag_s
        self._interrupted = False
        self._now_s = start_s
        self._soon: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call]] = []
        self._num_scheduled = 0
        self._num_cancelled = 0

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._now_s

    def visit(self, at_s: float) -> None:
        """Set the clock to do work of that instant; set it back before the next await.

        Meanwhile nothing may be scheduled with a delay.
        """
        self._now_s = at_s

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt from the run, between two calls; may be called by a signal.

        Raised in the middle of a call, it would leave a task that can neither go on nor be
        cancelled.
        """
        self._interrupted = True

    @property
    def num_timers(self) -> int:
        """Scheduled calls, including cancelled ones that are not removed yet."""
        return len(self._timers)

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.Handle:
        """Call in this instant, after everything already scheduled for it."""
        call = _Call(self._now_s, callback, args, self, context)
        self._soon.append(call)
        return call

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call after `delay` seconds plus the timer's lag."""
        if self._lag_s is not None and delay > 0:
            delay += self._lag_s()
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call at the instant `when`, or now if that has passed."""
        call = _Call(when, callback, args, self, context)
        self._num_scheduled += 1
        heapq.heappush(self._timers, (when, self._num_scheduled, call))
        return call

    def note_cancelled(self) -> None:
        """Count a cancelled call; once in a while, remove such calls."""
        self._num_cancelled += 1
        if self._num_cancelled > max(_SWEEP_FROM, len(self._timers) // 2):
            # In place: the loop below holds on to the list.
            self._timers[:] = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._num_cancelled = 0

    def _run_once(self) -> None:
        """Run until stopped; asyncio expects one round of calls, and this runs many."""
        soon, timers = self._soon, self._timers
        while True:
            for _ in range(len(soon)):
                call = soon.popleft()
                callback = call._callback
                if callback is None:  # cancelled
                    continue
                try:
                    call._context.run(callback, *call._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._tell_of(callback, error)
            if self._interrupted:
                self._interrupted = False
                raise KeyboardInterrupt
            if self._stopping:  # type: ignore[attr-defined]  # set by stop()
                return
            if not soon:
                self._jump(timers)

    def _tell_of(self, callback: Callable[..., object], error: BaseException) -> None:
        """Pass a failure to the loop's exception handler, as any event loop does."""
        self.call_exception_handler(
            {"message": f"a call on the virtual loop failed: {callback!r}", "exception": error}
        )

    def _jump(self, timers: list[tuple[float, int, _Call]]) -> None:
        """Move the clock to the next timer, and queue all calls due then."""
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(_deadlock(self))
        self._now_s = now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= now_s:
            call = heapq.heappop(timers)[2]
            if not call._cancelled:
                self._soon.append(call)

    # What leads out of the virtual clock

    def call_soon_threadsafe(self, *_: object, **__: object) -> NoReturn:
        """Refuse: another thread has a different clock."""
        raise VirtualTimeError("a virtual clock cannot hear from other threads")

    def run_in_executor(self, *_: object, **__: object) -> NoReturn:
        """Refuse: an executor takes real time."""
        raise VirtualTimeError("a virtual clock cannot wait for an executor")

    def add_reader(self, *_: object) -> NoReturn:
        """Refuse: a file or a socket is ready at a real time."""
        raise VirtualTimeError("a virtual clock cannot wait for a file or a socket")

    def add_writer(self, *_: object) -> NoReturn:
        """Refuse, as `add_reader`."""
        raise VirtualTimeError("a virtual clock cannot wait for a file or a socket")

    async def sock_connect(self, *_: object) -> NoReturn:
        """Refuse: a network answers in real time."""
        raise VirtualTimeError("a virtual clock cannot wait for a network")

    async def create_connection(self, *_: object, **__: object) -> NoReturn:
        """Refuse, as `sock_connect`."""
        raise VirtualTimeError("a virtual clock cannot wait for a network")

    async def create_server(self, *_: object, **__: object) -> NoReturn:
        """Refuse, as `sock_connect`."""
        raise VirtualTimeError("a virtual clock cannot wait for a network")


def _deadlock(loop: VirtualLoop) -> str:
    """Return a message that names the waiting tasks, and where they wait."""
    waiting = []
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        frames = task.get_stack()
        where = f" in {frames[-1].f_code.co_qualname}" if frames else ""
        waiting.append(f"{task.get_name()}{where}")
    more = f" and {len(waiting) - _NAMED_TASKS} more" if len(waiting) > _NAMED_TASKS else ""
    return (
        f"nothing is scheduled at {loop.time():g} s and nothing can come from outside; "
        f"waiting: {', '.join(waiting[:_NAMED_TASKS]) or 'no task'}{more}"
    )


def run_virtual(
    main: Coroutine[Any, Any, T],
    start_s: float = 0.0,
    lag_s: Callable[[], float] | None = None,
) -> T:
    """Run `main` to its end on a new virtual loop, and cancel what it leaves running.

    Raises:
        Deadlock: everything waits and nothing can wake it.
        VirtualTimeError: it used something outside the virtual clock.
    """
    loop = VirtualLoop(start_s, lag_s)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _clean_up(loop)
        finally:
            loop.close()


def _clean_up(loop: VirtualLoop) -> None:
    """Cancel what is left; ignore an interruption that tasks pass on, which was already handled."""
    for _ in range(_CLEAN_UP_ROUNDS):
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_until_complete(_cancel_the_rest())
            loop.run_until_complete(loop.shutdown_asyncgens())
            return


async def _cancel_the_rest() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
