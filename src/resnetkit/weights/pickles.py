"""What a pickle of `torch.save` says, read without doing anything that it says.

A pickle is a program for a small machine. Here it runs on one that makes lists, dictionaries, numbers and texts, and
notes of tensors: where their numbers lie, and in which shape. A name that would be called is known as harmless and made
nothing of, or ends the reading. No object is hashed but a short key, nothing is expanded, and every step is counted, so
that a pickle costs no more than its own length.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch

MOST_BYTES = 32 << 20
"""Of one pickle: hundreds of times what the largest network's takes."""
MOST_STEPS = 2_000_000
MOST_DIMENSIONS = 8
_DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
_HARMLESS = frozenset(
    (
        "_codecs.encode",
        "__builtin__.bytearray",
        "__builtin__.complex",
        "__builtin__.set",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.dict",
        "builtins.list",
        "builtins.set",
        "argparse.Namespace",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch._utils._rebuild_qtensor",
        "torch._utils._rebuild_sparse_tensor",
    )
)
"""What training scripts keep beside the weights. Nothing of it is made."""
_DICTIONARIES = ("collections.OrderedDict", "collections.Counter", "collections.defaultdict")


class BlockedError(ValueError):
    """A pickle that would call something. `str()` is its name."""


@dataclass(frozen=True, slots=True)
class Named:
    """A function or class by its name, or what it would have made."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Where numbers lie: a file's own name for the place, their type, the first one, how many."""

    key: str
    dtype: torch.dtype
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that was not read yet."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        count = 1
        for side in self.size:
            count *= side
        return count

    @property
    def reach(self) -> int:
        """How many of its storage's numbers it spans."""
        return self.offset + 1 + sum((side - 1) * step for side, step in zip(self.size, self.stride, strict=True))


@dataclass(frozen=True, slots=True)
class Pickled:
    """What a pickle says, and the storages that it names."""

    value: Any
    storages: dict[str, Storage]


def read_pickle(stream: BytesIO) -> Pickled:
    """What the pickle at the stream's position says, with `Stored` in place of tensors.

    Raises `BlockedError` for one that would call what is not known; `ValueError` for what is no pickle.
    """
    machine = _Machine()
    return Pickled(machine.run(stream), machine.storages)


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.steps = 0

    def run(self, stream: BytesIO) -> Any:
        try:
            for code, argument, _ in pickletools.genops(stream):
                self.count(1)
                if code.name == "STOP":
                    return self.stack.pop()
                act = _ACTS.get(code.name)
                if act is None:
                    raise ValueError(f"its pickle uses {code.name}")
                act(self, argument)
        except (IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise ValueError(f"its pickle is broken ({type(error).__name__})") from error
        raise ValueError("its pickle has no end")

    def count(self, steps: int) -> None:
        """Charge for work."""
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise ValueError("its pickle has too many parts")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def name(self, name: str) -> None:
        """Push a name that is known."""
        name = name.replace(" ", ".", 1)
        known = name in _HARMLESS or name in _BUILDERS or name in _DTYPES or _storage_dtype(name) is not None
        if not known:
            raise BlockedError(name[:200])
        self.push(Named(name))

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def pop_marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def gather(self, kind: Callable[[list[Any]], Any], count: int | None = None) -> None:
        """Make one thing of the last `count` on the stack, or of all since the last mark."""
        if count is None:
            self.push(kind(self.pop_marked()))
        else:
            self.stack[-count:] = [kind([self.stack[-each] for each in range(count, 0, -1)])]

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_dictionary(zip(items[::2], items[1::2], strict=True)))

    def pop_item(self) -> list[Any]:
        value, key = self.stack.pop(), self.stack.pop()
        return [key, value]

    def reduce(self, drop: int = 0) -> None:
        """What would be a call. `drop` things on top of the arguments do not matter."""
        for _ in range(drop):
            self.stack.pop()
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls what is no function")
        self.push(_BUILDERS[function.name](self, arguments) if function.name in _BUILDERS else function)

    def persistent(self) -> None:
        """What stands outside of the pickle: the numbers of a tensor."""
        what = self.stack.pop()
        if not isinstance(what, tuple) or len(what) < 5 or what[0] not in ("storage", b"storage"):
            raise ValueError("its pickle names what is no storage")
        kind, key, count = what[1], what[2], what[4]
        dtype = _storage_dtype(kind.name) if isinstance(kind, Named) else None
        first, view = 0, what[5] if len(what) > 5 else None
        if isinstance(view, tuple) and len(view) == 3:
            _, first, count = view
        if dtype is None or not isinstance(key, str) or not _whole(first, count):
            raise ValueError("its pickle names a storage that cannot be")
        storage = Storage(key, dtype, first, count)
        self.storages.setdefault(key, storage)
        self.push(storage)


def _storage_dtype(name: str) -> torch.dtype | None:
    place, _, kind = name.rpartition(".")
    return _STORAGES.get(kind.removesuffix("Storage")) if place in ("torch", "torch.cuda", "torch.storage") else None


def _whole(*numbers: Any) -> bool:
    """Whether these are numbers that can count something."""
    return all(type(number) is int and 0 <= number < 1 << 48 for number in numbers)


def _dictionary(pairs: Any) -> dict[Any, Any]:
    """Only names and small numbers are keys: to hash tuples of tuples, or a number of a megabyte, may take for ever."""
    return {
        key: value
        for key, value in pairs
        if isinstance(key, str | float | None) or (isinstance(key, int) and key.bit_length() < 64)
    }


def _ordered(machine: _Machine, arguments: tuple) -> dict[Any, Any]:
    """Python 2 gave a list of pairs; later ones set the items one by one."""
    if len(arguments) != 1 or not isinstance(arguments[0], list):
        return {}
    machine.count(len(arguments[0]))
    pairs = arguments[0]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("its pickle makes a dictionary of what are no pairs")
    return _dictionary(pairs)


def _tensor(_machine: _Machine, arguments: tuple) -> Any:
    """`_rebuild_tensor(storage, offset, size, stride, …)`, and of version 3 with a type behind."""
    storage, offset, size, stride = arguments[:4]
    dtype = next((_DTYPES.get(each.name) for each in arguments[4:] if isinstance(each, Named)), None)
    whole = isinstance(storage, Storage) and isinstance(size, tuple) and isinstance(stride, tuple)
    if not whole or not len(size) == len(stride) <= MOST_DIMENSIONS or not _whole(offset, *size, *stride):
        raise ValueError("its pickle makes a tensor that cannot be")
    if any(isinstance(each, dict) and each for each in arguments[6:]):
        return Named("a conjugate or negative view")
    if any(isinstance(each, dict) and each for each in arguments[6:]):
        return Named("a conjugate or negative view")
    return Stored(storage, dtype or storage.dtype, offset, size, stride)


_BUILDERS: dict[str, Callable[[_Machine, tuple], Any]] = {
    **dict.fromkeys(_DICTIONARIES, _ordered),
    **dict.fromkeys([f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")], _tensor),
    "torch._utils._rebuild_parameter": lambda _, arguments: arguments[0],
    "torch._utils._rebuild_parameter_with_state": lambda _, arguments: arguments[0],
    "torch.Size": lambda _, arguments: arguments[0],
}
_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"
)
_ACTS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(_VALUES.split(), lambda m, value: m.push(value)),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(Named("builtins.set")),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.pop_marked(),
    "LIST": lambda m, _: m.gather(list),
    "TUPLE": lambda m, _: m.gather(tuple),
    "DICT": lambda m, _: m.gather(lambda items: _dictionary(zip(items[::2], items[1::2], strict=True))),
    "TUPLE1": lambda m, _: m.gather(tuple, 1),
    "TUPLE2": lambda m, _: m.gather(tuple, 2),
    "TUPLE3": lambda m, _: m.gather(tuple, 3),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_marked()),
    "SETITEM": lambda m, _: m.set_items(m.pop_item()),
    "SETITEMS": lambda m, _: m.set_items(m.pop_marked()),
    "ADDITEMS": lambda m, _: m.pop_marked(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, place: m.memo.__setitem__(place, m.stack[-1])),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.push(m.memo[place])),
    "GLOBAL": lambda m, name: m.name(name),
    "STACK_GLOBAL": lambda m, _: m.name(" ".join(m.pop_item())),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.reduce(),
    "NEWOBJ_EX": lambda m, _: m.reduce(drop=1),
    "BUILD": lambda m, _: m.stack.pop(),  # what an object would hold
    "BINPERSID": lambda m, _: m.persistent(),
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
}
