"""Other people's names for the same parameters, and which network a set of tensors belongs to.

A known layout is mapped name by name; what is left must fit a network whole. Nothing is ever loaded in part.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from resnetkit.errors import CheckpointError, UsageError
from resnetkit.networks.arch import OUTSIDE, VARIANTS, Arch, get_arch, worded
from resnetkit.networks.resnet import ResNet

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "net.", "network.", "student.", "encoder.")
"""What DataParallel, torch.compile, Lightning and training scripts put in front of a network's names."""

MOST_PREFIXES = 8

_NORM = {"convolution": "0", "normalization": "1"}
HUGGING_FACE = (
    (r"(?:resnet\.)?embedder\.embedder\.convolution\.", "conv1."),
    (r"(?:resnet\.)?embedder\.embedder\.normalization\.", "bn1."),
    (
        r"(?:resnet\.)?encoder\.stages\.(\d{1,6})\.layers\.(\d+)\.shortcut\.(convolution|normalization)\.",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.{_NORM[m[3]]}.",
    ),
    (
        r"(?:resnet\.)?encoder\.stages\.(\d{1,6})\.layers\.(\d+)\.layer\.(\d{1,6})\.(convolution|normalization)\.",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.{'conv' if m[4] == 'convolution' else 'bn'}{int(m[3]) + 1}.",
    ),
    (r"classifier\.1\.", "fc."),
)
TUTORIAL_BLOCKS = (  # left and right branch
    (r"pre\.0\.", "conv1."),
    (r"pre\.1\.", "bn1."),
    (r"(layer\d+\.\d+)\.left\.0\.", r"\1.conv1."),
    (r"(layer\d+\.\d+)\.left\.1\.", r"\1.bn1."),
    (r"(layer\d+\.\d+)\.left\.3\.", r"\1.conv2."),
    (r"(layer\d+\.\d+)\.left\.4\.", r"\1.bn2."),
    (r"(layer\d+\.\d+)\.right\.", r"\1.downsample."),
)
D2L_NAMED = (  # one Sequential with named stages
    (r"0\.", "conv1."),
    (r"1\.", "bn1."),
    (r"resnet_block(\d+)\.(\d+)\.conv3\.", r"layer\1.\2.downsample.0."),
    (r"resnet_block(\d+)\.", r"layer\1."),
    (r"fc\.1\.", "fc."),
)
D2L_NUMBERED = (  # a Sequential of Sequentials
    (r"0\.0\.", "conv1."),
    (r"0\.1\.", "bn1."),
    (r"([1-4])\.(\d+)\.conv3\.", r"layer\1.\2.downsample.0."),
    (r"([1-4])\.(\d+)\.", r"layer\1.\2."),
    (r"7\.", "fc."),
)
COMMON = (
    (r"(linear|classifier|head|head\.fc|last_linear)\.(weight|bias)$", r"fc.\2"),
    (r"(fc|linear|classifier|head|last_linear)\.1\.(weight|bias)$", r"fc.\2"),  # behind a Dropout
    (r"(layer\d+\.\d+)\.shortcut\.", r"\1.downsample."),
)


@dataclass(frozen=True)
class Match:
    """Tensors under our names, the network that they fill, and what had to be decided on the way."""

    tensors: dict[str, Tensor]
    arch: Arch
    model: str
    notes: tuple[str, ...]


def match_arch(
    tensors: Mapping[str, Tensor],
    *,
    file: object,
    model: str | None = None,
    fields: Mapping[str, Any] = MappingProxyType({}),
    headless: bool = False,
) -> Match:
    """Find the network that `tensors` fill whole: `model` where it is given, else the variant that fits.

    `fields` of `model` are others than in the table. Classes, input channels and, where no field says it, the stem are
    read off the shapes: a kernel of 7x7 is that of ImageNet's networks, 3x3 that of CIFAR's. What stands beside a
    wrapped network, such as the weights of its loss, is left out and named. `headless` takes a network without a head.
    Raises `CheckpointError` (exit code 4), with what is missing and unexpected and the variant that would fit best,
    where no network is filled whole.
    """
    renamed, beside, notes = rename(tensors)
    first, last = renamed.get("conv1.weight"), renamed.get("fc.weight")
    if first is None or first.ndim != 4 or (last is not None and last.ndim != 2):
        raise CheckpointError(
            "these are not the weights of a ResNet",
            file=str(file),
            why=f"it holds {_some(list(renamed))}",
            remedy="resnetkit list models shows the networks",
        )
    if last is None and not headless:
        raise CheckpointError(
            "the weights have no head",
            file=str(file),
            why=f"a backbone alone names no classes; it holds {_some(list(renamed))}",
            remedy="resnetkit train FOLDER --weights with this file, which trains one",
        )
    depths = _depths(renamed)
    candidates = [model] if model is not None else [name for name in VARIANTS if VARIANTS[name].depths == depths]
    fields = {name: value for name, value in fields.items() if name not in OUTSIDE}
    try:
        tried = {name: _difference(_adapted(name, renamed, fields), renamed) for name in candidates}
    except UsageError as error:
        if model is not None and model not in VARIANTS:
            raise
        raise CheckpointError("the weights are of no network that can be", file=str(file), why=str(error)) from error
    if last is None:
        beside |= {name for name in renamed if name.startswith("fc.")}  # a head of another kind
    whole = [name for name, (missing, unexpected) in tried.items() if not missing and not unexpected.keys() - beside]
    if not whole:
        raise _no_fit(file, model, fields, renamed)
    left_out = [*tried[whole[0]][1]]
    if left_out:
        notes = (*notes, f"left out {_some(left_out)}")
    if len(whole) > 1:
        notes = (
            *notes,
            f"the tensors also fit {', '.join(whole[1:])}; taken as {whole[0]}, as --model may say otherwise",
        )
    arch = _adapted(whole[0], renamed, fields)
    wanted = [name for name in _shapes(arch) if last is not None or not name.startswith("fc.")]
    return Match({name: renamed.get(name, torch.tensor(0)) for name in wanted}, arch, whole[0], notes)


def rename(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str], tuple[str, ...]]:
    """Take prefixes off and put our names in place of the layouts that are known.

    Also gives the names that stood beside a wrapped network, without its prefix. Raises `CheckpointError`.
    """
    names = {name: name for name in tensors if not name.endswith("n_averaged")}
    stripped, beside = [], set()
    while len(stripped) < MOST_PREFIXES and (prefix := next((p for p in PREFIXES if _mostly(names.values(), p)), None)):
        beside |= {original for original, name in names.items() if not name.startswith(prefix)}
        names = {original: name.removeprefix(prefix) for original, name in names.items()}
        stripped.append(prefix)
    layout, rules = _layout(set(names.values()))
    ours = {original: _apply(name, (*rules, *COMMON)) for original, name in names.items()}
    notes = [f"took the prefix {''.join(stripped)!r} off"] if stripped else []
    notes += [f"read as {layout}"] if layout else []
    renamed = {ours[original]: tensors[original] for original in names}
    if len(renamed) < len(names):
        twice = next(name for name in renamed if list(ours.values()).count(name) > 1)
        raise CheckpointError(f"two of the tensors would be {twice[:80]}", remedy="a file of one network alone")
    return renamed, {ours[original] for original in beside}, tuple(notes)


def _mostly(names: Collection[str], prefix: str) -> bool:
    """A wrapped backbone leaves a head beside it without the prefix."""
    if prefix == "encoder." and "embedder.embedder.convolution.weight" in names:
        return False  # Hugging Face's backbone, whose stem stands beside its encoder
    return sum(name.startswith(prefix) for name in names) > 0.9 * len(names) > 0


def _layout(names: set[str]) -> tuple[str | None, tuple]:
    if any(name.startswith(("resnet.embedder.", "embedder.embedder.")) for name in names):
        return "Hugging Face's layout", HUGGING_FACE
    if "pre.0.weight" in names:
        return "the tutorial's left and right branches", TUTORIAL_BLOCKS
    if any(name.startswith("resnet_block1.") for name in names):
        return "the tutorial's Sequential of named stages", D2L_NAMED
    if "0.0.weight" in names and "1.0.conv1.weight" in names:
        return "the tutorial's Sequential of Sequentials", D2L_NUMBERED
    return None, ()


def _apply(name: str, rules: tuple) -> str:
    for pattern, replacement in rules:
        changed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            name = changed
            break
    return name


def _adapted(name: str, tensors: Mapping[str, Tensor], fields: Mapping[str, Any] = MappingProxyType({})) -> Arch:
    """A variant with the classes, channels and stem that the tensors have, and `fields` changed."""
    first, last = tensors["conv1.weight"], tensors.get("fc.weight")
    stem = "imagenet" if first.shape[-1] == 7 else "cifar"
    head = {} if last is None else {"num_classes": last.shape[0]}
    return get_arch(name, **({"stem": stem} | dict(fields)), in_channels=first.shape[1], **head)


def _depths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks in each stage, as the names count them."""
    blocks = {
        (int(found[1]), int(found[2])) for name in tensors if (found := re.match(r"layer(\d{1,6})\.(\d{1,6})\.", name))
    }
    return tuple(sum(stage == number for stage, _ in blocks) for number in sorted({stage for stage, _ in blocks}))


def _shapes(arch: Arch) -> dict[str, torch.Size]:
    with torch.device("meta"):  # shapes alone: no memory, and no numbers drawn to fill it
        return {name: tensor.shape for name, tensor in ResNet(arch, initialise=False).state_dict().items()}


def _difference(arch: Arch, tensors: Mapping[str, Tensor]) -> tuple[list[str], dict[str, str]]:
    """Names that are missing, and names that are unexpected or of another shape, with what to say of them."""
    wanted = _shapes(arch)
    if "fc.weight" not in tensors:
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith("fc.")}
    # Files from before PyTorch 0.4.1 do not count batches, and nothing depends on the count.
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = {
        name: name if name not in wanted else f"{name} {tuple(tensor.shape)} for {tuple(wanted[name])}"
        for name, tensor in tensors.items()
        if name not in wanted or wanted[name] != tensor.shape
    }
    return missing, unexpected


def _no_fit(
    file: object, model: str | None, fields: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> CheckpointError:
    depths = _depths(tensors)

    def distance(name: str) -> int:
        ours = VARIANTS[name].depths
        return sum(abs(a - b) for a, b in zip_longest(ours, depths, fillvalue=0))

    nearest = sorted(VARIANTS, key=distance)[:6]
    differences = {name: _difference(_adapted(name, tensors), tensors) for name in nearest}
    best = min(differences, key=lambda name: sum(map(len, differences[name])))
    shown = model or best
    if fields or shown not in differences:
        missing, unexpected = _difference(_adapted(shown, tensors, fields), tensors)
    else:
        missing, unexpected = differences[shown]
    fits = not any(map(len, differences[best]))
    asked = worded(shown, fields)
    return CheckpointError(
        f"the weights are of another network than {asked}" if fields else f"the weights do not fill {shown}",
        file=str(file),
        why=f"missing {_some(missing)}; unexpected {_some(list(unexpected.values()))}",
        remedy=_remedy(best, fits=fits, changed=bool(fields)),
    )


def _remedy(best: str, *, fits: bool, changed: bool) -> str:
    if not fits:
        return f"the nearest network is {best}; resnetkit list models shows all"
    return f"--model {best}, as it stands in the table" if changed else f"--model {best}"


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(name[:70] for name in names[:2]) + more


def adapt_input(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for another number of input channels, (out, channels, k, k).

    To one channel: the sum over the old ones, which answers a grey image as the old filters answer it in three equal
    channels. To more: the old filters repeated, scaled so that equal channels keep their answer.
    """
    before = weight.shape[1]
    if channels == before:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / before), 1, 1)[:, :channels]
    return repeated * (before / channels)
