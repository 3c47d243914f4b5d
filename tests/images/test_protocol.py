"""Views of a picture, against torchvision's own transforms."""

import pytest
import torch
from torchvision.transforms import v2

from pictures import draw
from resnetkit.errors import UsageError
from resnetkit.images.preprocess import Preprocess, to_tensor
from resnetkit.images.protocol import ViewProtocol

LOOK = Preprocess(24, (0.5,) * 3, (0.5,) * 3, resize=32)
IMAGE = draw("red", 1, (80, 50))


def test_ten_crops_are_torchvisions() -> None:
    (ours,) = ViewProtocol(crops=10).views(IMAGE, LOOK)
    theirs = v2.TenCrop(24)(v2.Resize(32)(IMAGE))
    assert torch.equal(ours, torch.stack([to_tensor(crop) for crop in theirs]))


def test_scales_are_whole_pictures_resized_as_torchvision_does() -> None:
    ours = ViewProtocol(scales=(16, 40)).views(IMAGE, LOOK)
    for view, scale in zip(ours, (16, 40), strict=True):
        assert torch.equal(view[0], to_tensor(v2.Resize(scale)(IMAGE)))
        assert min(view.shape[2:]) == scale
        assert len(view) == 1


def test_flips_are_mirror_images_beside_each_view() -> None:
    (plain,) = ViewProtocol().views(IMAGE, LOOK)
    (both,) = ViewProtocol(flip=True).views(IMAGE, LOOK)
    assert torch.equal(both, torch.cat([plain, plain.flip(3)]))
    assert [len(view) for view in ViewProtocol(scales=(16, 40), flip=True).views(IMAGE, LOOK)] == [2, 2]


def test_another_size_keeps_the_share_that_is_cropped_off() -> None:
    look = ViewProtocol(size=36).preprocess(LOOK)
    assert (look.size, look.resize) == (36, 48)
    assert ViewProtocol(size=36).preprocess(Preprocess(24, (0.5,), (0.5,))).resize is None
    (view,) = ViewProtocol(size=36).views(IMAGE, look)
    assert torch.equal(view[0], to_tensor(v2.CenterCrop(36)(v2.Resize(48)(IMAGE))))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crops": 5}, "1 or 10"),
        ({"size": 0}, "--size 0 cannot be"),
        ({"scales": (224, -1)}, "--scales -1 cannot be"),
        ({"scales": (100_000,)}, "--scales 100000 cannot be"),
        ({"crops": 10, "flip": True}, "mirrored already"),
        ({"crops": 10, "scales": (32,)}, "another protocol"),
        ({"size": 32, "scales": (32,)}, "--size has no say"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(settings: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ViewProtocol(**settings)
