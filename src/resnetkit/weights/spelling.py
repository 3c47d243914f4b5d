"""How people write the names of weights, torchvision's way or in part, and what they should type."""

import difflib
import re
from enum import Enum
from pathlib import Path
from typing import NoReturn

from resnetkit.errors import UsageError
from resnetkit.networks.arch import VARIANTS
from resnetkit.weights.table import OWN, WEIGHTS, best_weights, weights_of

_TORCHVISION = re.compile(r"(\w+)_Weights\.(\w+)")


def spelled(weights: "str | Path | Enum") -> str:
    """The table's name for one of torchvision's, `ResNet50_Weights.IMAGENET1K_V2`, as an object or as a text.

    Anything else stays as it is. Raises `UsageError` (exit code 2) for one of torchvision's that we do not have.
    """
    name = f"{type(weights).__name__}.{weights.name}" if isinstance(weights, Enum) else str(weights)
    theirs = _TORCHVISION.fullmatch(name)
    if theirs is None or Path(name).exists():
        return name
    model, tag = theirs[1].lower(), theirs[2].lower()
    if tag == "default" and model in VARIANTS:
        return best_weights(model)
    ours = f"{model}.{tag}"
    if ours not in WEIGHTS:
        raise UsageError.unknown("weights", name, (*WEIGHTS, *OWN), remedy="resnetkit list weights")
    return ours


def unknown_weights(name: str, model: str | None = None) -> UsageError:
    """What to answer to a name that is neither in the table nor a path; `model` is the network that they are for."""
    path = Path(name)
    if name in VARIANTS:
        known = weights_of(name)
        remedy = " or ".join(known[:3]) if known else "the path of a file with its weights"
        return UsageError(f"{name} names a network and no weights", remedy=remedy)
    if best := _meant(name, model):
        return UsageError(f"unknown weights {name!r}", remedy=best)
    if name.partition(".")[0] not in VARIANTS and (path.suffix or len(path.parts) > 1):
        return UsageError("there is no model", file=name, why="no such file or folder", remedy="resnetkit list weights")
    return UsageError.unknown("weights", name, (*WEIGHTS, *OWN), remedy="resnetkit list weights, or a path")


def _meant(name: str, model: str | None) -> str | None:
    """The weights whose network is named, or is known, and whose tag was shortened or stands alone."""
    head, _, tag = name.lower().partition(".")
    if head not in VARIANTS:
        model, tag = model or "resnet50", name.lower()
    else:
        model = head
    tags = {known.partition(".")[2]: known for known in weights_of(model)}
    if tag in ("default", "pretrained", "true", "imagenet", "imagenet1k") and tags:
        return best_weights(model)
    short = [known for known in tags if known.endswith(f"_{tag}") or known.startswith(f"{tag}_")]
    near = short or (difflib.get_close_matches(tag, tags, n=1, cutoff=0.8) if tag else [])
    return tags[near[0]] if near else None


def refuse_pretrained(model: str) -> NoReturn:
    """What to answer to `pretrained=True`, which says no more than that there are weights."""
    known = weights_of(model)
    remedy = f'weights="{best_weights(model)}"' if known else "weights=FILE, or none"
    raise UsageError("pretrained= is not how weights are named here", remedy=remedy)
