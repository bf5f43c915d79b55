"""Memory that the application and its workers share, and who holds which part of it.

    ┌──────────────┬────────┬──────────────┬─────────────── … ─┐
    │ channels     │ block  │ block        │ never touched yet │   one sparse mapping, without a name
    └──────────────┴────────┴──────────────┴─────────────── … ─┘

Only the application hands out blocks and takes them back, so a worker that dies leaves nothing to clean up.
The mapping is larger than the machine: a page costs memory from its first use, and large free blocks give it back.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import threading

from modelserve.errors import OutOfMemoryError, OverloadedError

_PAGE_BYTES = mmap.PAGESIZE
_SMALLEST_CLASS = 12  # 4 KiB
_MAPPING_BYTES = (64 << 30, 16 << 30, 4 << 30, 1 << 30)
# Free blocks from this size on give their pages back once more than a little is kept.
_LARGE_BYTES = 1 << 20
_KEPT_BYTES = 64 << 20


def create_shared_file(size_bytes: int) -> int:
    """A file descriptor of memory that has no name, so that nothing is left when its holders are gone."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("modelserve", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp(prefix="modelserve-")
        os.unlink(path)  # noqa: PTH108  # a path only until here
    os.ftruncate(descriptor, size_bytes)
    return descriptor


class Arena:
    """The application's side: a mapping and its free blocks. Blocks are named by their offset in bytes.

    Args:
        reserved_bytes: How much at the start is not handed out as blocks.
        limit_bytes: How much may be handed out at once.

    Raises:
        OutOfMemoryError: the platform gives no such mapping.
    """

    def __init__(self, *, reserved_bytes: int, limit_bytes: int) -> None:
        self.descriptor, self.mapping = _map()
        self.view = memoryview(self.mapping)
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._next = -(-reserved_bytes // _PAGE_BYTES) * _PAGE_BYTES
        self._free: dict[int, list[int]] = {}
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> tuple[int, int]:
        """A block of at least this size: its offset (a multiple of 4096) and its class, for `give_back`.

        Raises:
            OverloadedError: all that may be handed out is in use.
        """
        kind = max((size_bytes - 1).bit_length(), _SMALLEST_CLASS)
        with self._lock:
            if self.used_bytes + (1 << kind) > self.limit_bytes:
                raise OverloadedError(
                    f"A request needs {size_bytes} bytes; {self.used_bytes} of {self.limit_bytes} bytes for requests "
                    "under way are in use. Send fewer at once, or larger ones in parts."
                )
            self.used_bytes += 1 << kind
            free = self._free.get(kind)
            if free:
                if kind >= _LARGE_BYTES.bit_length() - 1:
                    self._kept_bytes = max(0, self._kept_bytes - (1 << kind))
                return free.pop(), kind
            return self._fresh(kind), kind

    def give_back(self, offset: int, kind: int) -> None:
        """Return a block; nobody may read or write it any more."""
        size_bytes = 1 << kind
        with self._lock:
            self.used_bytes -= size_bytes
            if size_bytes >= _LARGE_BYTES:
                self._kept_bytes += size_bytes
                if self._kept_bytes > _KEPT_BYTES:
                    self._kept_bytes -= size_bytes
                    self._release_pages(offset, size_bytes)
            self._free.setdefault(kind, []).append(offset)

    def close(self) -> None:
        """Let go of the mapping; answers that still lie in it keep it alive for themselves."""
        if self.descriptor >= 0:
            if not self.used_bytes:
                # The mapping itself goes when its last view is collected; its memory goes now.
                self._release_pages(0, self._next)
            os.close(self.descriptor)
            self.descriptor = -1

    def _fresh(self, kind: int) -> int:
        offset = self._next
        if offset + (1 << kind) > len(self.mapping):
            self.used_bytes -= 1 << kind
            raise OverloadedError("The memory shared with the workers is used up. Send smaller requests.")
        self._next = offset + (1 << kind)
        return offset

    def _release_pages(self, offset: int, size_bytes: int) -> None:
        if hasattr(mmap, "MADV_REMOVE"):
            self.mapping.madvise(mmap.MADV_REMOVE, offset, size_bytes)


def _map() -> tuple[int, mmap.mmap]:
    """The largest mapping that the platform allows."""
    cause: OSError | ValueError | None = None
    for size_bytes in _MAPPING_BYTES:
        descriptor = create_shared_file(size_bytes)
        try:
            return descriptor, mmap.mmap(descriptor, size_bytes)
        except (OSError, ValueError) as error:  # a limit on address space; try a smaller one
            os.close(descriptor)
            cause = error
    raise OutOfMemoryError(
        f"No memory can be shared with workers ({cause}). Raise the limit on address space (ulimit -v)."
    ) from cause
