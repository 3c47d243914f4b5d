"""Which views of a picture are shown to the network, and averaged: one, or those of the paper's protocols."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from resnetkit.errors import UsageError
from resnetkit.images.preprocess import Preprocess, to_tensor
from resnetkit.recipes.ranges import require

Views = tuple[Tensor, ...]
"""What is shown of one picture: groups, each uint8 (V, C, H, W) of one size."""


@dataclass(frozen=True)
class ViewProtocol:
    """Views whose probabilities are averaged. Raises `UsageError` (exit code 2) for a combination that cannot be."""

    crops: int = 1
    """10: corners, centre, and their mirror images (Krizhevsky et al. 2012; He et al. 2015, table 3)."""
    scales: tuple[int, ...] = ()
    """Shorter sides to which the whole picture is brought, uncropped: the network is applied fully convolutionally, and
    its maps are pooled (He et al. 2015, section 3.4)."""
    size: int | None = None
    """Side of what the network sees, where it is another than in training; the share that is cropped off stays."""
    flip: bool = False
    """Each view and its mirror image."""

    def __post_init__(self) -> None:
        if self.crops not in (1, 10):
            raise UsageError(f"crops {self.crops} cannot be", remedy="1 or 10")
        for side in self.scales:
            require(scales=side)
        require(size=self.size)
        if self.crops == 10 and (self.scales or self.flip):
            which = "--scales is another protocol" if self.scales else "five of ten crops are mirrored already"
            raise UsageError("ten crops cannot go with that", why=which, remedy="one of them")
        if self.scales and self.size is not None:
            raise UsageError("--size has no say", why="--scales names all sizes itself", remedy="one of them")

    @property
    def plain(self) -> bool:
        """Whether there is one view of a picture, the one that it is trained for or of another size."""
        return self.crops == 1 and not self.scales and not self.flip

    @property
    def count(self) -> int:
        """Views of a picture."""
        return self.crops * max(1, len(self.scales)) * (2 if self.flip else 1)

    @property
    def mirrors(self) -> str:
        """Which views are mirrored, for people; empty where none is."""
        return "five of ten crops are" if self.crops == 10 else "every second view is" if self.flip else ""

    def describe(self) -> str:
        """In a few words; empty where there is nothing to say."""
        parts = [
            f"{self.size} px" if self.size is not None else "",
            "ten crops" if self.crops == 10 else "",
            f"whole pictures at {', '.join(map(str, self.scales))} px" if self.scales else "",
            "mirrored too" if self.flip else "",
        ]
        return ", ".join(filter(None, parts))

    def preprocess(self, look: Preprocess) -> Preprocess:
        """How pictures are prepared. Raises `UsageError` (exit code 2) for ten crops that would all be the same."""
        if self.size is not None:
            resize = None if look.resize is None else round(look.resize * self.size / look.size)
            look = replace(look, size=self.size, resize=resize)
        if self.crops == 10 and (look.resize or look.size) <= look.size:
            raise UsageError(
                "ten crops would be one and its mirror image",
                why=f"images are brought to {look.size} px, of which the network sees all",
                remedy="weights whose preprocessing crops, or one crop",
            )
        return look

    def values(self, look: Preprocess) -> int:
        """About how many numbers the views of a picture are; `look` is what `preprocess` gave."""
        sides = self.scales or (look.size,)
        return look.channels * self.count * sum(side**2 for side in sides) // len(sides)

    def views(self, image: Image.Image, look: Preprocess) -> Views:
        """What is shown of a decoded picture; `look` is what `preprocess` gave."""
        if self.crops == 10:
            return (_ten_crops(to_tensor(look.resized(image)), look.size),)
        shown: Sequence[Tensor] = [look.pixels(image)]
        if self.scales:
            shown = [to_tensor(replace(look, resize=scale).resized(image)) for scale in self.scales]
        return tuple(torch.stack([each, each.flip(2)] if self.flip else [each]) for each in shown)


ONE_VIEW = ViewProtocol()


def _ten_crops(pixels: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2.functional import ten_crop

    return torch.stack(ten_crop(pixels, [size, size]))
