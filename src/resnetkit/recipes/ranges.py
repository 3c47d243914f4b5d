"""Which numbers the flags of commands, and the arguments of functions of the same name, may be.

Keys of a recipe have their bounds in `recipes.schema`, fields of a network in `networks.arch`.
"""

from numbers import Integral, Real

from resnetkit.errors import UsageError

RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, 1_000_000),
    "scales": (8, 4096),
    "limit": (50, 1_000_000_000),
    "mean": (-1000.0, 1000.0),
    "megabytes": (0.001, 1_000_000.0),
    "near": (0, 10),
    "seed": (0, 2**63 - 1),
    "seeds": (1, 1000),
    "show": (0, 1_000_000),
    "size": (1, 4096),
    "std": (1e-6, 1000.0),
    "top": (1, 1_000_000),
    "validation": (0.0001, 0.9999),
    "workers": (0, 256),
}
"""Least and most; whole numbers where these are whole."""
WITHOUT_FLAG = frozenset({"near"})
"""Arguments of functions that no command has."""


def require(**values: float | None) -> None:
    """Raise `UsageError` (exit code 2) for the first value that is outside of the range of its name.

    None stands for a number that was not given.
    """
    for name, value in values.items():
        least, most = RANGES[name]
        whole = isinstance(least, int)
        if value is None or (isinstance(value, Integral if whole else Real) and least <= value <= most):
            continue
        kind, flag = "a whole number" if whole else "a number", f"--{name.replace('_', '-')}"
        called, remedy = (name, f"{least} to {most}") if name in WITHOUT_FLAG else (flag, f"{flag} {least}")
        raise UsageError(
            f"{called} {repr(value)[:40]} cannot be", why=f"it is {kind} from {least:,} to {most:,}", remedy=remedy
        )
