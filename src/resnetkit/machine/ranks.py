"""Several processes that train one network, and how they agree.

PyTorch's own engine: `torchrun` starts the processes and says to each which it is, `torch.distributed` carries the
tensors. A single process is a world of one, for which nothing here does anything.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from resnetkit.errors import PeerError, ResnetkitError, UsageError
from resnetkit.machine.signals import hear_of_parents_death
from resnetkit.machine.torchrun import Place, agent_gone, place

Result = TypeVar("Result")
PATIENCE = "RESNETKIT_PEER_SECONDS"
"""Environment variable: how long a rank waits for the others; half an hour by default, for one may be reading files."""


@dataclass(frozen=True)
class Ranks(Place):
    """This process among `size` of them, and how they agree."""

    waits: list[float] = field(default_factory=list, compare=False)
    """Seconds that this rank has waited for the others, at each place where they meet."""

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks."""
        if self.alone:
            return list(values)
        total, began = torch.tensor(values, dtype=torch.float64), time.monotonic()
        dist.all_reduce(total)
        self.waits.append(time.monotonic() - began)
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

    def straggler(self) -> tuple[int, float] | None:
        """The rank for which the others have waited longest since this was last asked, and for how many seconds."""
        if self.alone:
            return None
        waited = self.gather(sum(self.waits))
        self.waits.clear()
        slowest = waited.index(min(waited))
        return slowest, max(waited) - waited[slowest]

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
    here = place()
    return Ranks(here.rank, here.size, here.local)


@contextmanager
def joined(ranks: Ranks) -> Iterator[Ranks]:
    """Connect with the other ranks, and part from them at the end.

    Raises `PeerError` (exit code 8) where the others cannot be reached, or one of them has gone.
    """
    if ranks.alone or dist.is_initialized():
        yield ranks
        return
    hear_of_parents_death("SIGTERM", agent_gone)  # nobody else would ask us to stop where the agent is killed
    backend = "cpu:gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local)
        backend += ",cuda:nccl"
    patience = timedelta(seconds=float(os.environ.get(PATIENCE, "1800")))
    try:
        common, _, _ = next(dist.rendezvous("env://", ranks.rank, ranks.size, timeout=patience))
        store = _register(ranks, common, patience)
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=patience)
        yield ranks
        dist.barrier()  # the first rank holds the register in which the others look each other up
    except (RuntimeError, OSError) as error:
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


def _register(ranks: Ranks, common: dist.Store, patience: timedelta) -> dist.Store:
    """The register in which ranks look each other up, kept by the first of them.

    torchrun's own register, `common`, outlives the processes that it starts again, and with them the addresses of the
    dead ones, so it serves for one thing only: to say where today's is. What it said before cannot be connected to.
    """
    where = "resnetkit/register"
    if ranks.first:
        host = _own_address()
        own = dist.TCPStore(host, 0, ranks.size, is_master=True, timeout=patience, wait_for_workers=False)
        common.set(where, f"{host} {own.port}")
        return own
    until = time.monotonic() + patience.total_seconds()
    while True:
        host, port = common.get(where).decode().split()
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return dist.TCPStore(host, int(port), ranks.size, is_master=False, timeout=patience)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _own_address() -> str:
    """The address of this machine on the way to the one that torchrun names. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
        return way.getsockname()[0]


def _is_of_a_peer(error: RuntimeError | OSError) -> bool:
    text = str(error).lower()
    signs = ("gloo", "nccl", "peer", "connection", "tcpstore", "timed out", "rendezvous", "socket", "broken pipe")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)
