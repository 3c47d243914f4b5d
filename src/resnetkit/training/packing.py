"""What code of the user's own remembers, taken apart into tensors and JSON, and put together again: no pickle."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from resnetkit.errors import UsageError


def pack(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    """`value` as JSON; its tensors are put into `tensors` under names that begin with `place`.

    Raises `UsageError` (exit code 2) for what is neither a tensor, a number, a text, nor a dict or list of such.
    """
    if isinstance(value, Tensor):
        tensors[place] = value.detach().clone()
        return {"tensor": place}
    if isinstance(value, Mapping):
        return {"dict": [[_key(key, place), pack(of, tensors, f"{place}.{key}")] for key, of in value.items()]}
    if isinstance(value, list | tuple):
        parts = [pack(of, tensors, f"{place}.{number}") for number, of in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(
        f"{place} is a {type(value).__name__}",
        why="what is kept with a checkpoint is made of tensors, numbers and text, in dicts and lists",
        remedy="another state_dict()",
    )


def _key(key: object, place: str) -> object:
    if key is None or isinstance(key, bool | int | float | str):
        return key
    raise UsageError(f"{place} has a key of type {type(key).__name__}", remedy="keys that are text or numbers")


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given. Raises `LookupError`, `TypeError` or `ValueError` where it is something else."""
    if not isinstance(packed, dict):
        return packed
    (kind, content), *_ = packed.items()
    if kind == "tensor":
        return tensors[content].clone()
    if kind == "dict":
        return {key: unpack(value, tensors) for key, value in content}
    parts = [unpack(each, tensors) for each in content]
    return parts if kind == "list" else tuple(parts)


def same_layout(value: Tensor, like: Tensor) -> Tensor:
    """`value` with the memory layout of a tensor of the same shape."""
    return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
