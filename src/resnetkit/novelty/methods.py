"""Scores of novelty: what each keeps of training images, and how strange it finds others. The larger, the stranger."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

NEIGHBOUR = 10
"""Which nearest neighbour counts."""
BANK = 2000
"""Training images at most whose features are kept as neighbours."""
MOST_BYTES = 4 << 20
"""Bytes at most of what a method keeps."""
PRINCIPAL = 4
"""One direction of the principal subspace for so many features."""


@dataclass(frozen=True)
class Method:
    """One way to score novelty, on float64 features (N, D), labels (N,) and logits (N, C)."""

    fit: Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]
    """Features, labels and logits of training images to what is kept, by name."""
    score: Callable[[Tensors, Tensor, Tensor], Tensor]
    """What is kept, features (N, D) and logits (N, C) of other images to their scores (N,)."""
    shapes: Mapping[str, tuple[str, ...]]
    """What is kept, and of which shape: D features, C classes, N anything."""


def _energy(_kept: Tensors, _features: Tensor, logits: Tensor) -> Tensor:
    """Free energy at temperature 1 (Liu et al. 2020, equation 4)."""
    return -logits.logsumexp(1)


def _keep_bank(features: Tensor, labels: Tensor, _logits: Tensor) -> dict[str, Tensor]:
    most = min(BANK, MOST_BYTES // (4 * features.shape[1]))
    return {"bank": unit(features[spread_over_classes(labels, most)])}


def _neighbour(kept: Tensors, features: Tensor, _logits: Tensor) -> Tensor:
    """Distance to the k-th nearest training image on the unit sphere (Sun et al. 2022, section 3)."""
    bank = kept["bank"]
    near = (unit(features) @ bank.T).topk(min(NEIGHBOUR, len(bank)), 1).values[:, -1]
    return (2 - 2 * near).clamp(min=0).sqrt()


def _keep_gaussians(features: Tensor, labels: Tensor, _logits: Tensor) -> dict[str, Tensor]:
    features = unit(features)
    present, index = labels.unique(return_inverse=True)
    means = torch.stack([features[index == each].mean(0) for each in range(len(present))])
    values, directions = torch.linalg.eigh(ledoit_wolf(features - means[index]))
    whitening = directions / values.clamp(min=torch.finfo(torch.float32).tiny).sqrt()
    return {"means": means @ whitening, "whitening": whitening}


def _mahalanobis(kept: Tensors, features: Tensor, _logits: Tensor) -> Tensor:
    """Squared Mahalanobis distance to the nearest class, with one covariance for all (Lee et al. 2018, equation 2).

    Of features of length 1, as Mueller and Hein (2025) have it: much better than of features as they are where a
    network tells strangers by the length.
    """
    return torch.cdist(unit(features) @ kept["whitening"], kept["means"]).min(1).values.square()


def _keep_principal(features: Tensor, _labels: Tensor, logits: Tensor) -> dict[str, Tensor]:
    count, width = features.shape
    most = MOST_BYTES // (4 * width) - 2
    centre = features.mean(0)
    centred = features - centre
    directions = torch.linalg.eigh(centred.T @ centred / count).eigenvectors
    directions = directions.flip(1)[:, : max(1, min(width // PRINCIPAL, count // PRINCIPAL, most))].T.contiguous()
    outside = _outside(centred, directions).mean()
    scale = logits.max(1).values.mean().clamp(min=0) / outside.clamp(min=torch.finfo(torch.float32).tiny)
    return {"centre": centre, "directions": directions, "scale": scale.clamp(max=1e30)}


def _outside(centred: Tensor, directions: Tensor) -> Tensor:
    """Length of what of each row lies outside of the subspace of some orthonormal directions."""
    return (centred - (centred @ directions.T) @ directions).norm(dim=1)


def _virtual_logit(kept: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    """Virtual-logit matching: what lies outside of the training images' principal subspace, as a logit, plus energy.

    Wang et al. (2022), equation 7, in the logarithm and without the sum's own term; centred at the mean.
    """
    return kept["scale"] * _outside(features - kept["centre"], kept["directions"]) - logits.logsumexp(1)


METHODS = {
    "energy": Method(lambda *_: {}, _energy, {}),
    "neighbour": Method(_keep_bank, _neighbour, {"bank": ("N", "D")}),
    "mahalanobis": Method(_keep_gaussians, _mahalanobis, {"means": ("N", "D"), "whitening": ("D", "D")}),
    "virtual-logit": Method(_keep_principal, _virtual_logit, {"centre": ("D",), "directions": ("N", "D"), "scale": ()}),
}
DEFAULT = "virtual-logit"
"""The best on average of those measured; see docs/evaluate.md."""


def unit(features: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays."""
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)


def ledoit_wolf(centred: Tensor) -> Tensor:
    """Covariance (D, D) of centred rows (N, D), shrunk towards a multiple of the identity (Ledoit and Wolf 2004)."""
    count, width = centred.shape
    sample = centred.T @ centred / count
    level = sample.trace() / width
    spread = sample.square().sum()
    error = (centred.square().sum(1).square().sum() / count - spread) / (width * count)
    distance = (spread - 2 * level * sample.trace() + width * level**2) / width
    shrinkage = float(torch.minimum(error, distance) / distance) if distance > 0 else 0.0
    return (1 - shrinkage) * sample + shrinkage * level * torch.eye(width, dtype=centred.dtype)


def spread_over_classes(labels: Tensor, most: int) -> Tensor:
    """Positions of at most `most` rows, int64 in order: of every class the same share, taken evenly over its own."""
    if len(labels) <= most:
        return torch.arange(len(labels))
    places = torch.linspace(0, len(labels) - 1, most, dtype=torch.float64).round().long()
    return labels.argsort(stable=True)[places].sort().values
