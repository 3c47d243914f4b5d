"""Loss scaling, which keeps the small gradients of fp16 from becoming zero (Micikevicius et al. 2018, section 3.2)."""

from dataclasses import dataclass

GROWTH_STEPS = 2000
"""After so many steps without an overflow the scale is doubled."""


@dataclass
class LossScale:
    """The factor of the loss before its backward pass, a power of two: as large as the gradients bear."""

    factor: float = 2.0**16
    steps: int = 0
    """Steps since it was last changed."""

    def halve(self) -> None:
        """The gradients have overflowed."""
        self.factor, self.steps = self.factor / 2, 0

    def count(self) -> None:
        """A step was applied."""
        self.steps += 1
        if self.steps == GROWTH_STEPS:
            self.factor, self.steps = self.factor * 2, 0
