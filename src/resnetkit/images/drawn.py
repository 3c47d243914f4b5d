"""Pictures of our own making, to try everything on: four things, each in a landscape, no two alike."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 160
"""Pixels; they are drawn at twice the size, which makes edges soft."""
_DRAWN = 2 * SIDE


SKIES = ((90, 150, 225), (150, 190, 230), (165, 170, 180), (240, 170, 120), (70, 90, 150))
MEADOWS = ((90, 150, 60), (130, 160, 80), (190, 170, 90), (120, 100, 70), (205, 195, 170))
WATERS = ((40, 90, 150), (60, 130, 150), (90, 110, 130), (50, 120, 110))


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(30, 230, 3).tolist())


def _one_of(colours: tuple[tuple[int, int, int], ...], rng: np.random.Generator) -> np.ndarray:
    return np.array(colours)[rng.integers(len(colours))] + rng.integers(-20, 21, 3)


def _around(middle: float, spread: float, rng: np.random.Generator) -> float:
    return middle + spread * rng.uniform(-1, 1)


def _balloon(brush: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    y -= size
    brush.ellipse((x - size, y - size, x + size, y + size), fill=_colour(rng))
    brush.ellipse((x - size / 2.5, y - size, x + size / 2.5, y + size), fill=_colour(rng))
    basket = size / 5
    for side in (-1, 1):
        brush.line(
            (x + side * size * 0.6, y + size * 0.8, x + side * basket, y + 1.6 * size), fill=(40, 30, 20), width=2
        )
    brush.rectangle((x - basket, y + 1.6 * size, x + basket, y + 1.6 * size + 1.5 * basket), fill=(110, 70, 30))


def _boat(brush: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    deck = y + size / 2
    hull = [(x - size, deck), (x + size, deck), (x + 0.6 * size, deck + size / 2), (x - 0.6 * size, deck + size / 2)]
    brush.polygon(hull, fill=_colour(rng))
    brush.line((x, deck, x, deck - 1.6 * size), fill=(60, 40, 20), width=4)
    sail = _colour(rng)
    brush.polygon([(x + 6, deck - 8), (x + 6, deck - 1.5 * size), (x + 0.9 * size, deck - 8)], fill=sail)
    brush.polygon([(x - 6, deck - 8), (x - 6, deck - 1.2 * size), (x - 0.7 * size, deck - 8)], fill=sail)


def _house(brush: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    top, floor, half = y - size / 4, y + size, 0.9 * size
    brush.rectangle((x - half, top, x + half, floor), fill=_colour(rng))
    brush.polygon([(x - 1.1 * size, top), (x, top - 0.9 * size), (x + 1.1 * size, top)], fill=_colour(rng))
    brush.rectangle((x - size / 6, floor - 0.6 * size, x + size / 6, floor), fill=(70, 45, 25))
    for side in (-0.55, 0.55):
        middle = x + side * size
        brush.rectangle((middle - size / 6, top + size / 4, middle + size / 6, top + 0.6 * size), fill=(250, 235, 150))


def _tree(brush: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    brush.rectangle((x - size / 7, y, x + size / 7, y + 1.2 * size), fill=(95, 65, 35))
    for _ in range(14):
        turn, far, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.6) * size, rng.uniform(0.3, 0.5) * size
        at_x, at_y = x + far * math.cos(turn), y - size / 3 + far * math.sin(turn)
        green = (int(rng.integers(20, 110)), int(rng.integers(90, 170)), int(rng.integers(20, 70)))
        brush.ellipse((at_x - radius, at_y - radius, at_x + radius, at_y + radius), fill=green)


THINGS: dict[str, Callable[[ImageDraw.ImageDraw, float, float, float, np.random.Generator], None]] = {
    "balloon": _balloon,
    "boat": _boat,
    "house": _house,
    "tree": _tree,
}


def draw(thing: str, number: int) -> Image.Image:
    """Picture `number` of a thing, RGB, 160 x 160 pixels: the landscape, its light and the thing are drawn by lot."""
    rng = np.random.default_rng([number, *thing.encode()])
    picture = _landscape(_one_of(SKIES, rng), _one_of(WATERS if thing == "boat" else MEADOWS, rng), rng)
    x, y = _around(0.5, 0.22, rng) * _DRAWN, _around(0.52, 0.1, rng) * _DRAWN
    THINGS[thing](ImageDraw.Draw(picture), x, y, rng.uniform(45, 75), rng)
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    light = np.asarray(picture) * rng.uniform(0.7, 1.15) + rng.normal(0, 7, (SIDE, SIDE, 3))
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))


def _landscape(sky: np.ndarray, ground: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Sky with clouds, hills before it, and ground that is lighter on one side."""
    across = np.linspace(-1, 1, _DRAWN)
    brighter = rng.uniform(-0.25, 0.25, 2)
    light = 1 + brighter[0] * across[:, None, None] + brighter[1] * across[None, :, None]
    picture = Image.fromarray((sky * light).clip(0, 255).astype(np.uint8))
    brush = ImageDraw.Draw(picture)
    horizon = _around(0.6, 0.18, rng) * _DRAWN
    for _ in range(rng.integers(1, 6)):
        x, y, wide = rng.uniform(0, _DRAWN), rng.uniform(0, horizon), rng.uniform(20, 110)
        grey = int(rng.integers(170, 250))
        brush.ellipse((x - wide, y - wide / 4, x + wide, y + wide / 4), fill=(grey, grey, grey))
    for _ in range(4):
        x, wide, high = rng.uniform(0, _DRAWN), rng.uniform(40, 200), rng.uniform(20, 130)
        shade = ((sky + ground) / 2 + rng.integers(-50, 50)).clip(0, 255).astype(int)
        brush.ellipse((x - wide, horizon - high, x + wide, horizon + high), fill=tuple(shade.tolist()))
    below = Image.fromarray((ground * light).clip(0, 255).astype(np.uint8))
    picture.paste(below.crop((0, int(horizon), _DRAWN, _DRAWN)), (0, int(horizon)))
    return picture


def write(folder: Path, count: int, first: int = 0) -> Path:
    """`count` JPEG files of each thing, from number `first` on, in a folder of its name."""
    for thing in THINGS:
        (folder / thing).mkdir(parents=True)
        for number in range(first, first + count):
            draw(thing, number).save(folder / thing / f"{thing}-{number:02d}.jpg", quality=90)
    return folder
