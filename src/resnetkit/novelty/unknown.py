"""What a classifier keeps to tell what it has never seen: a score of novelty, and how known pictures score."""

import math
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from resnetkit.novelty.methods import DEFAULT, METHODS

SHARE = 0.05
"""Share of known pictures that is refused, where nothing else is said."""
ROWS = 64
"""Images that are scored together: in one shape, the score of one does not depend on its neighbours."""
KNOWN = "known"


@dataclass(frozen=True, eq=False)
class Unknown:
    """A score of novelty that was fitted to training images, with a threshold from validation images."""

    method: str
    """One of `METHODS`."""
    kept: dict[str, Tensor]
    """float32, what the method keeps of training images."""
    known: Tensor
    """float32 (V,), ascending: scores of validation images, none of which was learnt from."""
    width: int
    """How many features it takes."""
    share: float = SHARE
    """Share of known pictures that is refused, 0-1."""

    @property
    def threshold(self) -> float:
        """The score beyond which a picture is unknown.

        Of new pictures like those of validation at most `share` are refused on average, the draw of these included
        (split conformal prediction, Papadopoulos et al. 2002); where they are too few for that, none of them is.
        """
        place = math.ceil((1 - self.share) * (len(self.known) + 1))
        return float(self.known[min(max(place, 1), len(self.known)) - 1])

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        """Features (N, width) and logits (N, classes) as they are, not calibrated, to float32 scores (N,) on the CPU.

        The larger, the stranger; infinite for what is not finite. The same to the bit for every N.
        """
        method, kept = METHODS[self.method], {name: tensor.double() for name, tensor in self.kept.items()}
        parts = [torch.empty(0, dtype=torch.float64)]
        for few, some in zip(features.cpu().double().split(ROWS), logits.cpu().double().split(ROWS), strict=True):
            filling = (0, 0, 0, ROWS - len(few))
            parts.append(method.score(kept, F.pad(few, filling), F.pad(some, filling))[: len(few)])
        return torch.cat(parts).float().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)

    def to_bytes(self) -> bytes:
        """All that is kept, as a file of tensors."""
        return safetensors.torch.save({**self.kept, KNOWN: self.known})


def learn_unknown(
    features: Tensor,
    labels: Tensor,
    logits: Tensor,
    held_out: tuple[Tensor, Tensor],
    *,
    method: str = DEFAULT,
    share: float = SHARE,
) -> Unknown | None:
    """Fit a method to training images: features (N, D), labels (N,), logits (N, C).

    `held_out`: features (V, D) and logits (V, C) of images that were not learnt from. None where there are none, fewer
    than two to learn from, or something is not finite.
    """
    finite = all(bool(each.isfinite().all()) for each in (features, logits, *held_out))
    if len(features) < 2 or not len(held_out[0]) or not finite:
        return None
    kept = METHODS[method].fit(features.cpu().double(), labels.cpu(), logits.cpu().double())
    kept = {name: tensor.float().contiguous() for name, tensor in kept.items()}
    unknown = Unknown(method, kept, torch.empty(0), features.shape[1], share)
    return Unknown(method, kept, unknown.score(*held_out).sort().values, features.shape[1], share)


def restored(content: bytes, method: str, share: float, width: int) -> Unknown:
    """What `Unknown.to_bytes` gave, read again. Raises `ValueError` for what cannot be."""
    if method not in METHODS:
        raise ValueError(f"no score of novelty is called {method[:40]!r}")
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise ValueError(f"it is no file of tensors: {error}") from error
    shapes = {**METHODS[method].shapes, KNOWN: ("N",)}
    if tensors.keys() != shapes.keys():
        raise ValueError(f"it holds {_named(tensors)}, and {method} needs {_named(shapes)}")
    for name, tensor in tensors.items():
        sizes = [width if dimension == "D" else None for dimension in shapes[name]]
        fits = tensor.dim() == len(sizes) and all(
            size == (asked or max(size, 1)) for size, asked in zip(tensor.shape, sizes, strict=True)
        )
        if tensor.dtype != torch.float32 or not fits or (name != KNOWN and not bool(tensor.isfinite().all())):
            raise ValueError(f"its {name} cannot be: {tuple(tensor.shape)}, {tensor.dtype}")
    known = tensors.pop(KNOWN)
    if bool(known.isnan().any()) or bool((known.diff() < 0).any()):
        raise ValueError("its scores of known pictures are not in order")
    return Unknown(method, tensors, known, width, share)


def _named(names: Any) -> str:
    return ", ".join(sorted(str(name)[:40] for name in names)[:8]) or "nothing"
