"""The memory of this process: how much it may still take, and what an error looks like when there is none."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
SIGNS = (
    "can't allocate memory",  # torch's DefaultCPUAllocator
    "not enough memory",  # the same on other systems
    "std::bad_alloc",
    "could not create a memory object",  # oneDNN
    "Cannot allocate memory",
)
"""Words of the plain RuntimeErrors by which libraries say that memory has run out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, that of a GPU or of the machine."""
    torch = sys.modules.get("torch")  # who has not imported it cannot meet its errors
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def room() -> int:
    """Return the bytes that this process may still take: of the machine, its control groups and its limits."""
    import psutil

    rooms = [int(psutil.virtual_memory().available), *_limits()]
    rooms += _group_rooms(CGROUPS, OWN_CGROUP)
    return max(0, min(rooms))


def _limits() -> Iterator[int]:
    """Yield what ``ulimit -v`` and ``ulimit -d`` leave."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    for limit, field in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield most - int(fields[field].split()[0]) * 1024


def _group_rooms(root: Path, own: Path) -> Iterator[int]:
    """Yield what each control group that holds this process leaves, of version 2 or 1."""
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = base / path.lstrip("/")
        for group in (folder, *folder.parents):
            yield from _group_room(group, *names)
            if group == base:
                break


def _group_room(group: Path, limit: str, usage: str, cached: str) -> Iterator[int]:
    """Yield the room of one group, if it has a limit: pages of files give way, so they count as free."""
    try:
        most = (group / limit).read_text().strip()
        used = int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # the root group has no such files, nor has a group outside of this container
        return
    if most != "max":
        yield int(most) - used + int(stat.get(cached, 0))
