"""Small pictures that are easy to learn, alone, in folders and in shards."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def draw(colour: str, number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A noisy picture in which one colour prevails: easy to learn, and no two are alike."""
    noise = np.random.default_rng([number, *colour.encode()]).integers(-40, 40, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def fill(folder: Path, count: int, colours: tuple[str, ...] = tuple(COLOURS), first: int = 0) -> Path:
    """`count` pictures of each colour, one folder a colour."""
    for colour in colours:
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            draw(colour, number).save(folder / colour / f"{number:03d}.png")
    return folder


def png(number: int, colour: str = "red", size: tuple[int, int] = (12, 10)) -> bytes:
    """A small picture as a file's content."""
    stream = io.BytesIO()
    draw(colour, number, size).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar file of some names and contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(count: int, classes: int = 3) -> list[tuple[str, bytes]]:
    """The members of a shard of `count` pictures, labelled 0, 1, … in turn."""
    pairs = [((f"{i:04d}.png", png(i)), (f"{i:04d}.cls", str(i % classes).encode())) for i in range(count)]
    return [member for pair in pairs for member in pair]
