"""Memory that a step has freed stays with the process, for the next step."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST_MMAP = 32 << 20  # bytes; glibc takes no more
_GLIBC_TRIM = 2 * _LARGEST_MMAP  # where its own threshold ends up in a process that has freed large blocks
_NEVER = 2**31 - 1


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within, glibc gives nothing back to the system of what was freed in blocks of up to 32 MiB; afterwards it does.

    A step frees its activations and the next one asks for as many. glibc by itself returns what exceeds 64 MiB at the
    end of its heap, and the kernel then has to clear every page of it again, at every step. Blocks above 32 MiB are
    left alone: kept too, they take more memory than they save time. Where the user has set malloc's thresholds, or
    the C library is another, nothing happens.
    """
    libc = ctypes.CDLL(None)
    theirs = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if theirs or not all(hasattr(libc, name) for name in ("mallopt", "malloc_trim")):
        yield
        return
    libc.mallopt(_MMAP, _LARGEST_MMAP)
    libc.mallopt(_TRIM, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_TRIM, _GLIBC_TRIM)
        libc.malloc_trim(0)
