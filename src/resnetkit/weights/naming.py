"""Other people's names for the same parameters, and which network a set of tensors belongs to.

A known layout is mapped name by name; what is left must fit a network whole. Nothing is ever loaded in part.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from resnetkit.errors import CheckpointError
from resnetkit.networks.arch import VARIANTS, Arch, get_arch
from resnetkit.networks.resnet import ResNet

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "net.", "network.", "student.")
"""What DataParallel, torch.compile, Lightning and training scripts put in front of a network's names."""

_NORM = {"convolution": "0", "normalization": "1"}
HUGGING_FACE = (
    (r"resnet\.embedder\.embedder\.convolution\.", "conv1."),
    (r"resnet\.embedder\.embedder\.normalization\.", "bn1."),
    (
        r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.(convolution|normalization)\.",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.{_NORM[m[3]]}.",
    ),
    (
        r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.(convolution|normalization)\.",
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
    (r"(layer\d+\.\d+)\.shortcut\.", r"\1.downsample."),
)


@dataclass(frozen=True)
class Match:
    """Tensors under our names, the network that they fill, and what had to be decided on the way."""

    tensors: dict[str, Tensor]
    arch: Arch
    model: str
    notes: tuple[str, ...]


def match_arch(tensors: Mapping[str, Tensor], *, file: object, model: str | None = None) -> Match:
    """Find the network that `tensors` fill whole: `model` where it is given, else the variant that fits.

    Classes, input channels and the stem's kernel are read off the shapes. Raises `CheckpointError` (exit code 4), with
    what is missing and unexpected and the variant that would fit best, where no network is filled whole.
    """
    renamed, notes = rename(tensors)
    if "conv1.weight" not in renamed or renamed["conv1.weight"].ndim != 4 or "fc.weight" not in renamed:
        raise CheckpointError(
            "these are not the weights of a ResNet",
            file=str(file),
            why=f"it holds {_some(list(renamed))}",
            remedy="resnetkit list models shows the networks",
        )
    candidates = (
        [model] if model is not None else [name for name in VARIANTS if VARIANTS[name].depths == _depths(renamed)]
    )
    tried = {name: _difference(_adapted(name, renamed), renamed) for name in candidates}
    whole = [name for name, (missing, unexpected) in tried.items() if not missing and not unexpected]
    if not whole:
        raise _no_fit(file, model, renamed)
    if len(whole) > 1:
        notes = (
            *notes,
            f"the tensors also fit {', '.join(whole[1:])}; taken as {whole[0]}, as --model may say otherwise",
        )
    arch = _adapted(whole[0], renamed)
    filled = {name: renamed.get(name, torch.tensor(0)) for name in _shapes(arch)}
    return Match(filled, arch, whole[0], notes)


def rename(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Take prefixes off and put our names in place of the layouts that are known."""
    names = {name: name for name in tensors if not name.endswith("n_averaged")}
    stripped = []
    while prefix := next((p for p in PREFIXES if _mostly(names.values(), p)), None):
        names = {original: name.removeprefix(prefix) for original, name in names.items()}
        stripped.append(prefix)
    layout, rules = _layout(set(names.values()))
    renamed = {_apply(name, (*rules, *COMMON)): tensors[original] for original, name in names.items()}
    notes = [f"took the prefix {''.join(stripped)!r} off"] if stripped else []
    notes += [f"read as {layout}"] if layout else []
    return renamed, tuple(notes)


def _mostly(names: Collection[str], prefix: str) -> bool:
    """A wrapped backbone leaves a head beside it without the prefix."""
    return sum(name.startswith(prefix) for name in names) > 0.9 * len(names) > 0


def _layout(names: set[str]) -> tuple[str | None, tuple]:
    if any(name.startswith("resnet.embedder.") for name in names):
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


def _adapted(name: str, tensors: Mapping[str, Tensor]) -> Arch:
    """A variant with the classes, channels and stem that the tensors have."""
    first, last = tensors["conv1.weight"], tensors["fc.weight"]
    stem = "imagenet" if first.shape[-1] == 7 else "cifar"
    return get_arch(name, num_classes=last.shape[0], in_channels=first.shape[1], stem=stem)


def _depths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks in each stage, as the names count them."""
    blocks = {(int(found[1]), int(found[2])) for name in tensors if (found := re.match(r"layer(\d+)\.(\d+)\.", name))}
    return tuple(sum(stage == number for stage, _ in blocks) for number in sorted({stage for stage, _ in blocks}))


def _shapes(arch: Arch) -> dict[str, torch.Size]:
    with torch.device("meta"):  # shapes alone: no memory, and no numbers drawn to fill it
        return {name: tensor.shape for name, tensor in ResNet(arch, initialise=False).state_dict().items()}


def _difference(arch: Arch, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names that are missing, and names that are unexpected or of another shape."""
    wanted = _shapes(arch)
    # Files from before PyTorch 0.4.1 do not count batches, and nothing depends on the count.
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [
        name if name not in wanted else f"{name} {tuple(tensor.shape)} for {tuple(wanted[name])}"
        for name, tensor in tensors.items()
        if name not in wanted or wanted[name] != tensor.shape
    ]
    return missing, unexpected


def _no_fit(file: object, model: str | None, tensors: Mapping[str, Tensor]) -> CheckpointError:
    depths = _depths(tensors)

    def distance(name: str) -> int:
        ours = VARIANTS[name].depths
        return sum(abs(a - b) for a, b in zip_longest(ours, depths, fillvalue=0))

    nearest = sorted(VARIANTS, key=distance)[:6]
    differences = {name: _difference(_adapted(name, tensors), tensors) for name in nearest}
    best = min(differences, key=lambda name: sum(map(len, differences[name])))
    shown = model or best
    missing, unexpected = differences.get(shown) or _difference(_adapted(shown, tensors), tensors)
    fits = not any(map(len, differences[best]))
    return CheckpointError(
        f"the weights do not fill {shown}",
        file=str(file),
        why=f"missing {_some(missing)}; unexpected {_some(unexpected)}",
        remedy=f"--model {best}" if fits else f"the nearest network is {best}; resnetkit list models shows all",
    )


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


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
