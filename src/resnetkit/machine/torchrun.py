"""What `torchrun` says of this process among those that it has started. Nothing is connected, and no torch needed."""

import os
from dataclasses import dataclass

_AGENT = os.getppid()
"""Who has started this process, as long as it is read before anything that takes time."""


@dataclass(frozen=True)
class Place:
    """This process among `size` of them; `local` counts those on this machine. A single process is a world of one."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is nobody to agree with."""
        return self.size == 1

    def share(self, count: int) -> slice:
        """This rank's part of `count` things in a row. The parts differ by one at most, and join to the whole."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def place() -> Place:
    """The place of this process; a world of one where `torchrun` has not started it."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Place()
    rank, size, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Place(rank, size, local)


def restarted() -> bool:
    """Whether `torchrun` has started this process anew after a failure: then the same command goes on."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def agent_gone() -> bool:
    """Whether the process that has started this one has ended since."""
    return os.getppid() != _AGENT
