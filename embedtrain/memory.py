"""The memory of this process: how much it may still take, errors when there is none, a heap that stays small."""

import ctypes
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

GROWTH = 1.1
"""A heap that holds so many times what is usual is swept."""
FIRST_STEPS = 4
"""Steps behind a sweep that say what is usual."""
PERIOD = 10
"""Of training steps: a heap may grow by less than is seen at once, but for hours."""
TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""glibc's numbers of these settings, and below their values as it starts."""
DEFAULTS = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65_536}
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
SIGNS = (
    "can't allocate memory",  # torch's DefaultCPUAllocator
    "not enough memory",  # the same on other systems
    "std::bad_alloc",
    "could not create a memory object",  # oneDNN
    "could not create a primitive",  # the same; it does not say why
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


class Heap:
    """Lets steps use the memory of the steps before them, and gives it back when it has broken into pieces.

    Left alone, glibc gives large blocks back at once and asks for them again in the next layer; the system
    hands out zeroed pages, which takes up to a fifth of the time. Kept, blocks of ever other sizes fit ever
    less into what is free, and the process grows for hours. So all is kept, and given back between two steps
    now and then, and when the process holds clearly more than after the first steps behind the last time.
    Between ``begin`` and ``end`` the settings are those of the whole process.

    Args:
        period: Steps after which it is swept in any case.
    """

    def __init__(self, period: int = PERIOD) -> None:
        self._period = period
        self.usual = 0
        """Most bytes that were held after one of the first steps behind a sweep."""
        self._steps = 0
        """Since the last sweep."""

    def begin(self) -> None:
        """Keep what is freed, from now on."""
        _set_allocator(dict.fromkeys(DEFAULTS, 0) | {TRIM_THRESHOLD: -1})

    def end(self) -> None:
        """Give back what is free, and from now on again as glibc does."""
        _set_allocator(DEFAULTS)
        sweep()

    def step_done(self) -> bool:
        """Look at what is held now, between two steps; sweep if it has grown, or it is time; return whether."""
        held = anonymous()
        self._steps += 1
        if self._steps <= min(FIRST_STEPS, self._period - 1):
            self.usual = held if self._steps == 1 else max(self.usual, held)
        elif (held > GROWTH * self.usual or self._steps >= self._period) and sweep():
            self._steps = 0
            return True
        return False


def _set_allocator(values: dict[int, int]) -> None:
    choose = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have other allocators
    for setting, value in values.items():
        if choose is not None:
            choose(setting, value)


def anonymous() -> int:
    """Return the bytes in memory that belong to no file; 0 where the system does not say."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()


def sweep() -> bool:
    """Give all free memory of the heap back to the system; False where the C library cannot (glibc can)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return trim is not None


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
