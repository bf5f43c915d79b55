"""Waking another process: an eventfd where there is one, a pipe elsewhere. Rings add up to one wake-up."""

from __future__ import annotations

import contextlib
import os
import sys

_HAS_EVENTFD = sys.platform == "linux"


class Bell:
    """One process rings, one waits for `wait_descriptor` to become readable and then silences it.

    `ring_descriptor` and `wait_descriptor` are inherited or passed; both ends may be the same number.
    """

    def __init__(self, ring_descriptor: int, wait_descriptor: int) -> None:
        self.ring_descriptor = ring_descriptor
        self.wait_descriptor = wait_descriptor

    @classmethod
    def create(cls) -> Bell:
        """A new bell; nobody but this process has it yet."""
        if _HAS_EVENTFD:
            descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return cls(descriptor, descriptor)
        wait_descriptor, ring_descriptor = os.pipe()
        os.set_blocking(wait_descriptor, False)
        os.set_blocking(ring_descriptor, False)
        return cls(ring_descriptor, wait_descriptor)

    def ring(self) -> None:
        """Wake whoever waits, now or as soon as it waits."""
        if _HAS_EVENTFD:
            os.eventfd_write(self.ring_descriptor, 1)
        else:
            with contextlib.suppress(BlockingIOError):  # full of rings already
                os.write(self.ring_descriptor, b"\0")

    def silence(self) -> None:
        """Forget all rings so far. Call this before looking for what they announced."""
        with contextlib.suppress(BlockingIOError):
            if _HAS_EVENTFD:
                os.eventfd_read(self.wait_descriptor)
            else:
                while os.read(self.wait_descriptor, 4096):
                    pass

    def __del__(self) -> None:
        # Closed when nobody can ring any more, and not before: a number closed too early may by then belong to
        # another file, and a late ring would be written into that.
        for descriptor in {self.ring_descriptor, self.wait_descriptor}:
            os.close(descriptor)
