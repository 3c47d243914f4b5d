"""Augmentations by name: torchvision's v2 transforms as a recipe has them, made and tried before a run begins."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.errors import UsageError, blaming
from resnetkit.images.preprocess import Preprocess
from resnetkit.randomness import torch_seed

TRIES = 16
"""Times that each is tried on a made-up picture: some do something only every second time."""
NO_NAMES = ("Transform", "Lambda", "Compose", "RandomApply", "RandomChoice", "RandomOrder")
"""Of v2, but nothing that a name and arguments of text and numbers can say."""


def named_transforms(named: Sequence[tuple[str, Mapping[str, Any]]], preprocess: Preprocess) -> list[nn.Module]:
    """The transforms of v2 that a recipe names, each tried on pictures as they reach it, uint8 (C, size, size).

    Raises `UsageError` (exit code 2) for a name that torchvision does not have, for arguments that it does not take,
    and for a transform that gives something else than such a picture.
    """
    from torchvision.transforms import v2

    known = {name: kind for name, kind in vars(v2).items() if _is_transform(kind, v2.Transform)}
    pixels = torch.arange(preprocess.channels * preprocess.size**2) % 256
    pixels = pixels.to(torch.uint8).view(preprocess.channels, preprocess.size, preprocess.size)
    made = []
    for name, arguments in named:
        if name not in known:
            raise UsageError.unknown("transform in augment.extra", name, known)
        transform = _make(name, known[name], arguments)
        with torch_seed("augment.extra", name):
            for _ in range(TRIES):
                keeps_pixels(transform, pixels, f"{name} in augment.extra")
        made.append(transform)
    return made


def _is_transform(kind: object, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and kind.__name__ not in NO_NAMES


def _make(name: str, kind: type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    from torchvision.transforms import AutoAugmentPolicy, InterpolationMode

    enums = {"interpolation": InterpolationMode, "policy": AutoAugmentPolicy}
    takes = list(inspect.signature(kind).parameters)
    for argument in arguments:
        if argument not in takes:
            raise UsageError.unknown(f"argument of {name} in augment.extra", argument, takes)
    try:
        return kind(**{key: enums[key](value) if key in enums else value for key, value in arguments.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{name} in augment.extra cannot be made with {dict(arguments)!r:.80}",
            why=str(error).partition("\n")[0][:160],
            remedy=f"its arguments are {', '.join(takes) or 'none'}",
        ) from error


def keeps_pixels(transform: Callable[[Tensor], Tensor], pixels: Tensor, what: str) -> Tensor:
    """What a transform makes of a picture, uint8 (C, H, W); `what` names it.

    Raises `HookError` (exit code 2) where it fails, `UsageError` (2) where it gives no such picture of the same shape.
    """
    with blaming(what):
        changed = transform(pixels)
    if not isinstance(changed, Tensor) or changed.dtype != torch.uint8 or changed.shape != pixels.shape:
        given = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
        raise UsageError(
            f"{what} gives {given.removeprefix('torch.')} for a picture of uint8 {tuple(pixels.shape)}",
            why="pictures keep their type and shape until they are normalised",
            remedy="a transform that gives uint8 of the same shape; data.image_size and data.mean say the rest",
        )
    return changed
