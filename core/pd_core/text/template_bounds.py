"""What a chat template may use; known to the process that renders it and to its parent."""

__all__ = ["KEPT_BYTES", "MAX_CHARACTERS", "MAX_TEMPLATE_CHARACTERS", "MEMORY_BYTES"]

MAX_TEMPLATE_CHARACTERS = 262_144
"""In the template itself."""

MAX_CHARACTERS = 4_000_000
"""In a prompt; a million tokens."""

MEMORY_BYTES = 512 << 20
"""Address space of the process that renders; a hundred times what an ordinary chat needs."""

KEPT_BYTES = 64 << 20
"""A process that holds more after a chat is not kept for the next chat."""
