"""Random changes to training images, each drawn from (seed, epoch, sample index) and from nothing else.

The order: crop or resize, TrivialAugment, those by name, the user's own; then flip and shift, of a whole batch. All of
that works on uint8 pixels; erasing and mixing work on normalised floats.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.images.preprocess import Preprocess, to_image, to_tensor
from resnetkit.images.transforms import keeps_pixels, named_transforms
from resnetkit.randomness import every_seed, torch_seed, uniform
from resnetkit.recipes.schema import AugmentRecipe


class Augment:
    """The augmentations of one run; `transform` is the user's own, uint8 (C, size, size) to the same.

    Raises `UsageError` (exit code 2) for one that torchvision does not have, or that cannot be used on such images.
    """

    def __init__(
        self,
        settings: AugmentRecipe,
        preprocess: Preprocess,
        *,
        num_classes: int,
        seed: int,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.settings, self.preprocess, self.num_classes, self.seed = settings, preprocess, num_classes, seed
        named = cast("tuple[tuple[str, dict[str, Any]], ...]", settings.extra)
        self.extra = named_transforms(named, preprocess) if named else []
        self.transform = transform
        if transform is not None:
            self._own(torch.full((preprocess.channels, preprocess.size, preprocess.size), 128, dtype=torch.uint8), 0, 0)

    @property
    def per_image(self) -> bool:
        """Whether single images have work of their own, which `image` or `pixels` does."""
        named = self.settings.random_resized_crop or self.settings.trivial_augment or bool(self.extra)
        return named or self.transform is not None

    def image(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        """A decoded image as uint8 pixels, (C, size, size): the part of the work that a loader's process does."""
        with torch_seed(self.seed, "image", epoch, index):
            if self.settings.random_resized_crop:
                pixels = to_tensor(self._crop()(image))
            else:
                pixels = self.preprocess.pixels(image)
            pixels = self._changed(pixels)
        return self._own(pixels, epoch, index)

    def pixels(self, pixels: Tensor, epoch: int, index: int) -> Tensor:
        """The same for an image held in memory, uint8 (C, H, W)."""
        with torch_seed(self.seed, "image", epoch, index):
            if self.settings.random_resized_crop:
                pixels = to_tensor(self._crop()(to_image(pixels))).to(pixels.device)
            else:
                pixels = self.preprocess.batch(pixels.unsqueeze(0)).squeeze(0)
            pixels = self._changed(pixels)
        return self._own(pixels, epoch, index)

    def _changed(self, pixels: Tensor) -> Tensor:
        if self.settings.trivial_augment:
            pixels = self._trivial()(pixels)
        for transform in self.extra:
            pixels = transform(pixels)
        return pixels

    def _own(self, pixels: Tensor, epoch: int, index: int) -> Tensor:
        """The user's own transform. Raises `HookError` (exit code 2) where it fails."""
        if self.transform is None:
            return pixels
        with every_seed(self.seed, "transform", epoch, index):
            return keeps_pixels(self.transform, pixels, "the transform")

    def geometry(self, pixels: Tensor, epochs: np.ndarray, indices: np.ndarray) -> Tensor:
        """Flip and shift a batch, uint8 (N, C, H, W)."""
        if self.settings.flip:
            mirror = torch.from_numpy(uniform(self.seed, "flip", epochs, indices) < 0.5).to(pixels.device)
            pixels = torch.where(mirror.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        if pad := self.settings.pad_crop:
            pixels = self._shift(pixels, pad, epochs, indices)
        return pixels

    def _shift(self, pixels: Tensor, pad: int, epochs: np.ndarray, indices: np.ndarray) -> Tensor:
        count, _, height, width = pixels.shape
        # The border is the mean colour, which is zero after normalisation: what the paper's padding shows the network.
        fill = torch.tensor(self.preprocess.mean, device=pixels.device).mul_(255).round_().to(torch.uint8)
        padded = fill.view(1, -1, 1, 1).repeat(count, 1, height + 2 * pad, width + 2 * pad)
        padded[:, :, pad : pad + height, pad : pad + width] = pixels
        offsets = [
            torch.from_numpy((uniform(self.seed, use, epochs, indices) * (2 * pad + 1)).astype(np.int64))
            for use in ("shift-y", "shift-x")
        ]
        down, right = (offset.to(pixels.device).unsqueeze(1) for offset in offsets)
        rows = (down + torch.arange(height, device=pixels.device)).unsqueeze(2)
        columns = (right + torch.arange(width, device=pixels.device)).unsqueeze(1)
        each = torch.arange(count, device=pixels.device).view(-1, 1, 1)
        return padded.permute(0, 2, 3, 1)[each, rows, columns].permute(0, 3, 1, 2)

    def erase(self, images: Tensor, epochs: np.ndarray, indices: np.ndarray) -> Tensor:
        """Blank a random rectangle of some normalised images, (N, C, H, W), in place."""
        if not self.settings.random_erasing:
            return images
        from torchvision.transforms import v2

        erasing = v2.RandomErasing(p=1.0)
        chosen = uniform(self.seed, "erase", epochs, indices) < self.settings.random_erasing
        for position in np.flatnonzero(chosen):
            with torch_seed(self.seed, "erase", int(epochs[position]), int(indices[position])):
                images[position] = erasing(images[position])
        return images

    def mix(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mixup or cutmix of a whole batch: images (N, C, H, W) and soft targets (N, num_classes)."""
        kinds = [kind for kind in ("mixup", "cutmix") if getattr(self.settings, kind)]
        if not kinds:
            return images, labels
        from torchvision.transforms import v2

        with torch_seed(self.seed, "mix", step):
            kind = kinds[int(torch.randint(len(kinds), ()))]
            mixing = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind]
            return mixing(alpha=getattr(self.settings, kind), num_classes=self.num_classes)(images, labels)

    def _crop(self) -> torch.nn.Module:
        from torchvision.transforms import v2

        return v2.RandomResizedCrop(self.preprocess.size, scale=self.settings.crop_scale, antialias=True)

    def _trivial(self) -> torch.nn.Module:
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide()
