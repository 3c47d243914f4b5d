"""Several processes that train one network: who they are, and how they agree.

PyTorch's own engine: `torchrun` starts the processes and says to each which it is, `torch.distributed` carries the
tensors. A single process is a world of one, for which nothing here does anything.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from resnetkit.errors import PeerError, ResnetkitError, UsageError

Result = TypeVar("Result")
PATIENCE = "RESNETKIT_PEER_SECONDS"
"""Environment variable: how long a rank waits for the others; half an hour by default, for one may be reading files."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size` of them; `local` counts those on this machine."""

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

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks."""
        if self.alone:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: float) -> int:
        """The largest flag of all ranks: not 0 where any of them says so."""
        if self.alone:
            return int(flag)
        largest = torch.tensor(float(flag))
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def gather(self, value: Result) -> list[Result]:
        """What every rank has, in their order."""
        if self.alone:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], Result]) -> Result:
        """What `make` gives on the first rank, on all of them. An error there is raised everywhere, and said once."""
        if self.alone:
            return make()
        outcome: list = [None]
        if self.first:
            try:
                outcome = [make()]
            except ResnetkitError as error:
                outcome = [error]
        dist.broadcast_object_list(outcome)
        if isinstance(outcome[0], ResnetkitError):
            outcome[0].said = not self.first
            raise outcome[0]
        return outcome[0]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first rank's."""
        if not self.alone:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def agree(self, facts: Mapping[str, object]) -> None:
        """Leave together where ranks do not have the same facts. Raises `UsageError` (exit code 2), naming the key."""
        everyone = self.gather({name: repr(value) for name, value in facts.items()})
        for name in sorted(set().union(*everyone)):
            values = [each.get(name, "nothing") for each in everyone]
            odd = next((rank for rank, value in enumerate(values) if value != values[0]), None)
            if odd is not None:
                error = UsageError(
                    f"the ranks disagree on {name}",
                    why=f"rank 0 has {values[0][:80]} and rank {odd} has {values[odd][:80]}",
                    remedy="the same command, files and versions for every rank",
                )
                error.said = not self.first
                raise error


ALONE = Ranks()
"""The world of a single process."""


def current() -> Ranks:
    """What `torchrun` says of this process; a world of one without it. Nothing is connected yet."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE
    return Ranks(*(int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def joined(ranks: Ranks) -> Iterator[Ranks]:
    """Connect with the other ranks, and part from them at the end.

    Raises `PeerError` (exit code 8) where the others cannot be reached, or one of them has gone.
    """
    if ranks.alone or dist.is_initialized():
        yield ranks
        return
    backend = "cpu:gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local)
        backend += ",cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=float(os.environ.get(PATIENCE, "1800"))))
        yield ranks
    except RuntimeError as error:
        if not _is_of_a_peer(error):
            raise
        raise PeerError(
            "another rank has gone",
            why=" ".join(str(error).split())[:160],
            remedy="its own message above; then the same command with --resume",
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _is_of_a_peer(error: RuntimeError) -> bool:
    text = str(error).lower()
    signs = ("gloo", "nccl", "peer", "connection", "tcpstore", "timed out", "rendezvous", "socket", "broken pipe")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)
