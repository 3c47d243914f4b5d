"""Which numbers the flags of commands, and the arguments of functions of the same name, may be.

Keys of a recipe have their bounds in `recipes.schema`, fields of a network in `networks.arch`.
"""

from numbers import Integral, Real

from resnetkit.errors import UsageError

RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, 1_000_000),
    "image_size": (1, 65_536),
    "limit": (20, 1_000_000_000),
    "megabytes": (0.001, 1_000_000.0),
    "near": (0, 7),
    "seed": (0, 2**63 - 1),
    "seeds": (1, 1000),
    "size": (1, 4096),
    "top": (1, 1_000_000),
    "validation": (0.0001, 0.9999),
    "workers": (0, 1024),
}
"""Least and most; whole numbers where these are whole."""


def require(**values: float | None) -> None:
    """Raise `UsageError` (exit code 2) for the first value that is outside of the range of its name.

    None stands for a number that was not given.
    """
    for name, value in values.items():
        least, most = RANGES[name]
        kind = Integral if isinstance(least, int) else Real
        if value is not None and not (isinstance(value, kind) and least <= value <= most):
            flag, given = f"--{name.replace('_', '-')}", f"{value!r}"[:40]
            what = "a whole number" if kind is Integral else "a number"
            raise UsageError(
                f"{flag} {given} cannot be", why=f"it is {what} from {least:,} to {most:,}", remedy=f"{flag} {least}"
            )
