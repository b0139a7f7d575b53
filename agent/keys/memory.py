"""Where a key rests while the agent runs: a page of its own that is not swapped out, not dumped, and empty in forked children.

Limits, said plainly: what a key derivation function, a JSON reader or Python itself copied on the way here cannot be wiped. Keys
therefore come in as a bytearray, are copied once, and the bytearray is zeroed.
"""

import ctypes
import mmap
import resource
import sys

import msgspec
from coincurve._libsecp256k1 import ffi

from agent.domain.errors import SignerError

KEY_BYTES = 32
_PR_GET_DUMPABLE = 3  # linux/prctl.h
_PR_SET_DUMPABLE = 4
_MADV_WIPEONFORK = 18  # linux/mman.h; Python names it from 3.13 on


class Hardening(msgspec.Struct, frozen=True):
    """What the operating system granted. False means: not available here, the agent runs without it."""

    core_dumps_off: bool
    undumpable: bool


def harden_process() -> Hardening:
    """Switch core dumps off and make the process unreadable for debuggers of the same user. Irreversible; best effort.

    Call it once, at start, before the first key is unlocked. Sources: setrlimit(2), prctl(2).
    """
    return Hardening(core_dumps_off=_core_dumps_off(), undumpable=_undumpable())


class KeyPage:
    """32 bytes in a page of their own. Not picklable, shows nothing, `close` wipes."""

    __slots__ = ("_map", "_view", "locked")

    def __init__(self, source: bytearray) -> None:
        """Takes the key over: `source` is all zeros afterwards, whatever happens. SignerError unless it has 32 bytes."""
        try:
            if len(source) != KEY_BYTES:
                raise SignerError(f"a key has {KEY_BYTES} bytes, this has {len(source)}")
            self._map = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._view = ffi.from_buffer("unsigned char[]", self._map, require_writable=True)
            self.locked = _shield(self._map, int(ffi.cast("uintptr_t", self._view)))
            ffi.memmove(self._view, source, KEY_BYTES)
        finally:
            source[:] = bytes(len(source))

    @property
    def pointer(self) -> object:
        """The cffi pointer to the key, for libsecp256k1 only."""
        if self.closed:
            raise SignerError("this key is closed; unlock it again")
        return self._view

    @property
    def closed(self) -> bool:
        return self._map.closed

    def close(self) -> None:
        """Wipe and give the page back. Repeating it is harmless."""
        if not self.closed:
            ffi.memmove(self._view, bytes(KEY_BYTES), KEY_BYTES)
            ffi.release(self._view)
            self._map.close()

    def __repr__(self) -> str:
        return "KeyPage(****)"

    def __reduce__(self) -> str:
        raise SignerError("a key cannot be pickled or copied")


def _shield(page: mmap.mmap, address: int) -> bool:
    """Keep the page out of swap, dumps and forked children, as far as the system allows. Returns whether it is locked."""
    for advice in (getattr(mmap, "MADV_DONTDUMP", None), _MADV_WIPEONFORK if sys.platform == "linux" else None):
        if advice is not None:
            try:
                page.madvise(advice)
            except OSError:
                continue  # an old kernel
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE))) == 0


def _core_dumps_off() -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    return resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


def _undumpable() -> bool:
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return int(libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)) == 0
