import numpy as np
import torch

from resnetkit.randomness import key, permutation, torch_seed, uniform


def test_draws_do_not_depend_on_the_batch() -> None:
    epochs, indices = np.arange(50) % 3, np.arange(50)
    whole = uniform(1, "flip", epochs, indices)
    assert np.array_equal(whole[17:23], uniform(1, "flip", epochs[17:23], indices[17:23]))


def test_draws_are_uniform_and_independent() -> None:
    from scipy import stats

    indices = np.arange(20_000)
    draws = {
        (seed, use, epoch): uniform(seed, use, np.full_like(indices, epoch), indices)
        for seed, use, epoch in [(0, "flip", 0), (0, "flip", 1), (1, "flip", 0), (0, "crop", 0)]
    }
    for values in draws.values():
        assert stats.kstest(values, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03
    table = np.corrcoef(list(draws.values()))
    assert np.abs(table - np.eye(4)).max() < 0.03


def test_draws_never_change_between_versions() -> None:
    # A run saved today must go on with the same numbers after an upgrade.
    assert key(0, "order", 3) == 5486038029339273987
    assert permutation(0, 0, 8).tolist() == [3, 0, 7, 1, 2, 4, 6, 5]
    assert np.round(uniform(0, "flip", np.array([0, 1]), np.array([5, 5])), 6).tolist() == [0.064697, 0.562142]


def test_a_permutation_visits_everything_once_and_differs_by_epoch() -> None:
    orders = [permutation(0, epoch, 100) for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert not np.array_equal(orders[0], orders[1])


def test_torch_seed_puts_the_global_state_back() -> None:
    before = torch.get_rng_state()
    with torch_seed(1, "a"):
        first = torch.rand(3)
    with torch_seed(1, "a"):
        assert torch.equal(first, torch.rand(3))
    with torch_seed(2, "a"):
        assert not torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())
