"""What a disk may hold after a power cut: a model of what file systems promise, in its weakest reading.

Bytes are safe once their file was fsynced; before, the file may be empty, hold a part, or all. A name is safe once its
folder was fsynced; before, each change of a folder (a name made, moved, removed) may be there or not, whatever was done
before or after it. A rename is one change: the old name or the new one, never both, never none.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

EXHAUSTIVE = 6
"""Up to so many changes that may be there or not, all combinations are built; beyond, the extremes and each alone."""


@dataclass
class Node:
    """A file or a folder."""

    is_folder: bool
    data: bytes = b""
    """As the running system sees it; of a file."""
    safe: bytes | None = None
    """As it was at its last fsync; none where there was none."""
    names: dict[str, "Node"] = field(default_factory=dict)
    """Of a folder, those that are safe."""
    pending: list[tuple[str | None, str | None, "Node"]] = field(default_factory=list)
    """Changes that are not safe: old name, new name, what it names."""

    def now(self) -> dict[str, "Node"]:
        return _applied(self.names, self.pending)


def _applied(names: dict[str, Node], changes: list[tuple[str | None, str | None, Node]]) -> dict[str, Node]:
    names = dict(names)
    for old, new, node in changes:
        if old is not None and names.get(old) is node:
            del names[old]
        if new is not None:
            names[new] = node
    return names


class Disk:
    """Follows a log of calls below one folder."""

    def __init__(self, root: str) -> None:
        self.root, self.top = root, Node(is_folder=True)
        self.root_exists = False

    def _find(self, path: str) -> Node | None:
        node: Node | None = self.top
        for part in Path(os.path.relpath(path, self.root)).parts:
            node = node.now().get(part) if node is not None else None
        return node

    def _change(self, path: str, old: str | None, new: str | None, node: Node) -> None:
        folder = self._find(os.path.dirname(path))
        assert folder is not None, path
        folder.pending.append((old, new, node))

    def do(self, name: str, path: str, arguments: list, result: object) -> None:
        """One call, as `plants.log_calls` wrote it."""
        base, node = os.path.basename(path), self._find(path)
        if path == self.root:  # its own name is another folder's matter
            node = self.top
            if name == "mkdir":
                return
        if name == "open":
            if node is None:
                self._change(path, None, base, Node(is_folder=False))
            elif not node.is_folder and arguments[0] & os.O_TRUNC:
                node.data = b""
        elif name == "mkdir":
            self._change(path, None, base, Node(is_folder=True))
        elif name == "write":
            node.data += arguments[0][:result]
        elif name in ("truncate", "ftruncate"):
            node.data = node.data[: arguments[0]]
        elif name == "fsync":
            if node.is_folder:
                node.names, node.pending = node.now(), []
            else:
                node.safe = node.data
        elif name in ("rename", "replace"):
            assert os.path.dirname(arguments[0]) == os.path.dirname(path)
            self._change(path, base, os.path.basename(arguments[0]), node)
        elif name in ("unlink", "rmdir"):
            self._change(path, base, None, node)
        else:
            raise NotImplementedError(name)

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """Disks that a power cut may leave now: content by path, None for a folder."""
        folders = [self.top, *(node for node in _below(self.top) if node.is_folder)]
        changes = [(folder, change) for folder in folders for change in folder.pending]
        for chosen in _choices(len(changes)):
            there = {id(changes[i][1]) for i in chosen}
            for data in ("empty", "part", "all"):
                state: dict[str, bytes | None] = {}
                unsafe = self._write_down(self.top, "", there, data, state)
                yield state
                if not unsafe:
                    break

    def _write_down(self, folder: Node, prefix: str, there: set[int], data: str, state: dict) -> bool:
        """Fill `state`; say whether any file's bytes are not safe."""
        unsafe = False
        for name, node in _applied(folder.names, [each for each in folder.pending if id(each) in there]).items():
            if node.is_folder:
                state[prefix + name] = None
                unsafe |= self._write_down(node, f"{prefix}{name}/", there, data, state)
            elif node.safe == node.data:
                state[prefix + name] = node.data
            else:
                unsafe = True
                half = max(len(node.data) // 2, len(node.safe or b""))
                state[prefix + name] = {"empty": node.safe or b"", "part": node.data[:half], "all": node.data}[data]
        return unsafe


def _below(folder: Node, seen: set[int] | None = None) -> Iterator[Node]:
    """Everything that any reading of a folder may hold."""
    seen = set() if seen is None else seen
    for node in (*folder.names.values(), *(change[2] for change in folder.pending)):
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            yield from _below(node, seen)


def _choices(count: int) -> Iterator[tuple[int, ...]]:
    if count <= EXHAUSTIVE:
        for size in range(count + 1):
            yield from itertools.combinations(range(count), size)
        return
    everything = tuple(range(count))
    yield from ((), everything)
    for each in everything:
        yield (each,)
        yield tuple(other for other in everything if other != each)


def build(state: dict[str, bytes | None], folder: Path) -> None:
    """Put a state on a real disk."""
    folder.mkdir()
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
