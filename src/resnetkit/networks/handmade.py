"""Networks of other hands: whether one is still what its `Arch` describes, and one that is wholly the user's own."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from resnetkit.errors import UsageError, blaming
from resnetkit.networks.arch import Arch
from resnetkit.networks.resnet import ResNet

SAME: dict[type[nn.Module], type[nn.Module]] = {nn.SyncBatchNorm: nn.BatchNorm2d}
"""What another part is in evaluation mode."""
OF_TRAINING = frozenset(("training", "momentum", "inplace", "recompute", "arch", "process_group"))
"""Settings of modules that change no answer in evaluation mode."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks")


def made(given: nn.Module | Callable[[], nn.Module], name: str) -> nn.Module:
    """A network of the user's own, or what the class or function makes that was given. Raises `UsageError` (code 2)."""
    with blaming(f"the network {name}"):
        network = given if isinstance(given, nn.Module) else given()
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {name} gives a {type(network).__name__}", remedy="a torch.nn.Module")
    return network


def described(network: nn.Module) -> Arch:
    """The `Arch` of a network: as many classes as its head has by now, and nothing else changed.

    Raises `UsageError` (exit code 2) where another part was put in, or anything that an `Arch` cannot say.
    """
    if type(network) is not ResNet:
        remedy = "the network inside it" if _wrapped(network) else "torch.save(network.state_dict(), FILE)"
        raise UsageError(f"the network is a {type(network).__name__}", why="an artefact holds a ResNet", remedy=remedy)
    head, kept = network.fc, network.arch
    width = kept.out_widths[-1]
    if type(head) is not nn.Linear or head.in_features != width or head.bias is None:
        raise UsageError(
            "the network's head was changed by hand",
            why=f"fc is {str(head)[:60]}, not a plain Linear of {width} inputs with a bias",
            remedy="network.reset_head(CLASSES), and train that",
        )
    arch = replace(kept, num_classes=head.out_features)
    with torch.device("meta"):
        expected = ResNet(arch, initialise=False)
    for change in _differences(expected, network):
        raise UsageError(
            "the network was changed by hand and cannot be saved with its description",
            why=change,
            remedy="undo it, or torch.save(network.state_dict(), FILE)",
        )
    return arch


def _wrapped(network: nn.Module) -> bool:
    return any(type(part) is ResNet for part in network.modules())


def _differences(expected: ResNet, network: ResNet) -> Iterator[str]:
    """What of a network is not as expected, part by part, in words."""
    theirs = dict(network.named_modules(remove_duplicate=False))
    for name, part in expected.named_modules(remove_duplicate=False):
        place, found = name or "the network", theirs.pop(name, None)
        if found is None:
            yield f"{place} is missing"
            continue
        if SAME.get(type(found), type(found)) is not type(part):
            yield f"{place} is a {type(found).__name__} for a {type(part).__name__}"
            continue
        if hook := next((kind for kind in HOOKS if getattr(found, kind)), None):
            yield f"{place} has {hook.strip('_').replace('_', ' ')}, which may change its answers"
        if isinstance(part, nn.Sequential) and _turned(_order(found), _order(part)):
            yield f"{place} has its parts in another order"
        for key, value in vars(part).items():
            if not key.startswith("_") and key not in OF_TRAINING and vars(found).get(key) != value:
                yield f"{place}.{key} is {str(vars(found).get(key))[:40]} for {str(value)[:40]}"
        for key in sorted(vars(found).keys() - vars(part).keys()):
            if callable(getattr(type(found), key, None)):
                yield f"{place}.{key} is a function of your own"
    for name in theirs:
        yield f"there is a part more, {name}"
    yield from _other_tensors(expected, network)


def _other_tensors(expected: ResNet, network: ResNet) -> Iterator[str]:
    wanted = {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in _tensors(expected).items()}
    found = _tensors(network)
    kinds = (Tensor, nn.Parameter)
    for name in sorted(wanted.keys() ^ found.keys()):
        yield f"{name} {'is missing, or stands in two places' if name in wanted else 'is a tensor more'}"
    for name, tensor in found.items():
        if type(tensor) not in kinds or (tuple(tensor.shape), tensor.is_floating_point()) != wanted.get(name):
            yield f"{name} is of another kind or shape"
    if len({tensor.data_ptr() for tensor in found.values()}) < len(found):
        yield "two of its tensors lie in one place"


def _tensors(network: ResNet) -> dict[str, Tensor]:
    """What is stored, each once, without the copies that `state_dict` hooks may make of it."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _turned(one: list[str], other: list[str]) -> bool:
    return one != other and sorted(one) == sorted(other)


def _order(part: nn.Module) -> list[str]:
    return [name for name, _ in part.named_children()]
