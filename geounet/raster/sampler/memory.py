"""How much memory is free."""

import os
import sys
from pathlib import Path


def free_memory() -> int:
    """Bytes of memory that this process may still take: of the machine, its control group, or its dask worker."""
    free = [_worker_memory(), _group_memory()]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration):  # not Linux; half of the machine is a guess that has room for the rest
        known = hasattr(os, "sysconf")
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if known else 2**31)
    return min(value for value in free if value is not None)


def _group_memory() -> int | None:
    """What the control group (version 2) of a container has left; None without a limit."""
    try:
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return max(limit - used + int(stat.get("inactive_file", 0)), 0)  # pages of files are given back at need


def _worker_memory() -> int | None:
    """Memory limit of the dask worker that this runs in; None outside of one, or without a limit."""
    if "distributed" not in sys.modules:
        return None
    import distributed

    try:
        limit = distributed.get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):
        return None
    return int(limit) if limit else None
