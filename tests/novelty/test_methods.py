"""Scores of novelty against scikit-learn, arithmetic in plain words, and Gaussians whose strangers are known."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf as their_ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from resnetkit.novelty import methods
from resnetkit.novelty.methods import (
    METHODS,
    NEIGHBOUR,
    PRINCIPAL,
    ledoit_wolf,
    spread_over_classes,
)

CLASSES, WIDTH = 4, 12


def known(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of four classes in six of twelve directions, float64, with little beside them; labels; logits."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    centres = np.zeros((CLASSES, WIDTH))
    centres[:, :CLASSES] = 6 * np.eye(CLASSES)
    features = centres[labels] + rng.normal(size=(count, WIDTH)) * np.r_[np.ones(6), np.full(6, 0.1)]
    return torch.tensor(features), torch.tensor(labels), torch.tensor(features[:, :CLASSES])


def strangers(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Between the classes, and where no known picture lies."""
    features = np.random.default_rng(1).normal(size=(count, WIDTH)) + 2 * (np.arange(WIDTH) >= 6)
    return torch.tensor(features), torch.tensor(features[:, :CLASSES])


def scores(method: str, features: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
    return METHODS[method].score(METHODS[method].fit(*known(400)), features, logits).numpy()


@pytest.mark.parametrize("method", METHODS)
def test_strangers_to_known_gaussians_are_stranger(method: str) -> None:
    features, _, logits = known(200, seed=2)
    usual, strange = scores(method, features, logits), scores(method, *strangers(200))
    assert roc_auc_score(np.repeat([0, 1], 200), np.r_[usual, strange]) > 0.97


def test_energy_is_the_logarithm_of_the_sum() -> None:
    _, _, logits = known(50)
    expected = -np.log(np.exp(logits.numpy()).sum(1))
    np.testing.assert_allclose(scores("energy", torch.zeros(50, WIDTH, dtype=torch.float64), logits), expected)


def test_the_neighbour_is_the_one_that_scikit_learn_finds() -> None:
    learnt, _, _ = known(400)
    features, logits = strangers(30)
    theirs = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(learnt / learnt.norm(dim=1, keepdim=True))
    expected = theirs.kneighbors(features / features.norm(dim=1, keepdim=True))[0][:, -1]
    np.testing.assert_allclose(scores("neighbour", features, logits), expected, rtol=1e-9)


@pytest.mark.parametrize("count", [8, 40, 400])
def test_shrinkage_is_that_of_scikit_learn(count: int) -> None:
    features, _, _ = known(count)
    centred = features - features.mean(0)
    expected, _ = their_ledoit_wolf(centred.numpy(), assume_centered=True)
    np.testing.assert_allclose(ledoit_wolf(centred).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_distance_is_mahalanobis_with_the_covariance_of_scikit_learn() -> None:
    learnt, labels, _ = known(400)
    learnt, labels = (learnt / learnt.norm(dim=1, keepdim=True)).numpy(), labels.numpy()
    means = np.stack([learnt[labels == each].mean(0) for each in range(CLASSES)])
    precision = np.linalg.inv(their_ledoit_wolf(learnt - means[labels], assume_centered=True)[0])
    features, logits = strangers(20)
    rows = (features / features.norm(dim=1, keepdim=True)).numpy()
    expected = [min((row - mean) @ precision @ (row - mean) for mean in means) for row in rows]
    np.testing.assert_allclose(scores("mahalanobis", features, logits), expected, rtol=1e-8)


def test_the_virtual_logit_is_what_scikit_learns_pca_leaves_over() -> None:
    learnt, _, learnt_logits = known(400)
    pca = PCA(WIDTH // PRINCIPAL).fit(learnt.numpy())

    def outside(rows: torch.Tensor) -> np.ndarray:
        return np.linalg.norm(rows.numpy() - pca.inverse_transform(pca.transform(rows.numpy())), axis=1)

    scale = learnt_logits.max(1).values.numpy().mean() / outside(learnt).mean()
    features, logits = strangers(20)
    expected = scale * outside(features) - np.log(np.exp(logits.numpy()).sum(1))
    np.testing.assert_allclose(scores("virtual-logit", features, logits), expected, rtol=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("count", "width"), [(2, 3), (9, 64), (300, 64)])
def test_what_is_kept_is_finite_and_small_whatever_it_is_learnt_from(
    method: str, count: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "MOST_BYTES", most := 4 * 64 * 12)
    rng = torch.Generator().manual_seed(0)
    features = torch.rand(count, width, generator=rng, dtype=torch.float64)
    logits = torch.rand(count, 3, generator=rng, dtype=torch.float64)
    kept = METHODS[method].fit(features, torch.arange(count) % 3, logits)
    assert method == "mahalanobis" or sum(4 * each.numel() for each in kept.values()) <= most
    assert all(each.isfinite().all() for each in kept.values())
    assert METHODS[method].score(kept, features[:2], logits[:2]).isfinite().all()


def test_features_that_are_all_alike_give_a_score() -> None:
    same, labels, logits = torch.ones(20, 8, dtype=torch.float64), torch.arange(20) % 2, torch.zeros(20, 2).double()
    for method in METHODS.values():
        assert not method.score(method.fit(same, labels, logits), same, logits).isnan().any()


def test_a_bank_has_the_same_share_of_every_class() -> None:
    labels = torch.tensor([0] * 500 + [1] * 100 + [2] * 400)
    chosen = spread_over_classes(labels[torch.randperm(1000, generator=torch.Generator().manual_seed(0))], 100)
    assert (len(chosen), bool((chosen.diff() > 0).all())) == (100, True)
    counts = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(0))][chosen].bincount().tolist()
    assert counts == pytest.approx([50, 10, 40], abs=1)
    assert spread_over_classes(labels[:7], 100).tolist() == list(range(7))
