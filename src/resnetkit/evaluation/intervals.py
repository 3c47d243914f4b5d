"""How sure a share is."""

import math


def wilson(successes: float, count: int) -> tuple[float, float]:
    """95 % interval of a share, in percent (Wilson 1927); it holds for few images and for shares near 100 %."""
    z = 1.959963984540054
    share = successes / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return 100 * (centre - spread) / scale, 100 * (centre + spread) / scale
