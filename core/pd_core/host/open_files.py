"""How many files, sockets among them, this process may have open."""

try:
    import resource
except ImportError:  # on Windows, where memory is the limit
    resource = None  # type: ignore[assignment]

__all__ = ["raise_open_files"]

_ENOUGH = 1 << 20  # where the hard limit is none
_USUAL = 1 << 13  # where the system has no such limit


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; return what holds now.

    The soft limit's usual 1,024 is for programs that call select(). A refusal is no error: what
    counts is the limit that is returned.
    """
    if resource is None:
        return _USUAL
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY:
        return target
    if soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (OSError, ValueError):
            return soft
    return max(soft, target)
