"""Random changes to training images, each drawn from (seed, epoch, sample index) and from nothing else.

Geometry works on uint8 pixels, a batch at a time where that is possible; erasing and mixing work on normalised floats.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.images.preprocess import Preprocess, to_image, to_tensor
from resnetkit.randomness import torch_seed, uniform
from resnetkit.recipes.schema import AugmentRecipe


class Augment:
    """The augmentations of one run."""

    def __init__(self, settings: AugmentRecipe, preprocess: Preprocess, *, num_classes: int, seed: int) -> None:
        self.settings, self.preprocess, self.num_classes, self.seed = settings, preprocess, num_classes, seed

    @property
    def per_image(self) -> bool:
        """Whether single images have work of their own, which `image` or `pixels` does."""
        return self.settings.random_resized_crop or self.settings.trivial_augment

    def image(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        """A decoded image as uint8 pixels, (C, size, size): the part of the work that a loader's process does."""
        with torch_seed(self.seed, "image", epoch, index):
            if self.settings.random_resized_crop:
                pixels = to_tensor(self._crop()(image))
            else:
                pixels = self.preprocess.pixels(image)
            return self._trivial()(pixels) if self.settings.trivial_augment else pixels

    def pixels(self, pixels: Tensor, epoch: int, index: int) -> Tensor:
        """The same for an image held in memory, uint8 (C, H, W)."""
        with torch_seed(self.seed, "image", epoch, index):
            if self.settings.random_resized_crop:
                pixels = to_tensor(self._crop()(to_image(pixels))).to(pixels.device)
            else:
                pixels = self.preprocess.batch(pixels.unsqueeze(0)).squeeze(0)
            return self._trivial()(pixels) if self.settings.trivial_augment else pixels

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
