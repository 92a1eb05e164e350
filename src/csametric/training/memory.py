"""Keep freed memory: on a CPU, a training step that hands its large blocks back to the system pays for them again."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks of any size for the rest of the process; false where there is no glibc.

    Without it every large tensor is mapped and zeroed anew in each step; with it L2Net trains about 1.4 times as fast
    (docs/EXPERIMENTS.md). The process keeps its peak memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    mapped_from = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # older glibc: 32 MiB at most
    return bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1) and mapped_from)
