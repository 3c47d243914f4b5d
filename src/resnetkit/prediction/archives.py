"""Pictures in a zip or a tar, looked at where they are: nothing of an archive is written to a place that it names."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock

from resnetkit.data.members import DAMAGE, Member, begins_as_archive, is_archive_name, members, parts_of, why_damaged
from resnetkit.data.walk import is_aside
from resnetkit.errors import DataError
from resnetkit.images.budget import BYTES, limit
from resnetkit.images.reading import check_header

MOST_SHARE = 4
"""A member's bytes, which are in memory while it is decoded, are at most one of so many parts of all that may be."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A file in an archive, not read yet. Threads take turns at an archive."""

    name: str
    member: Member
    turn: Lock

    def read(self) -> BytesIO:
        """Its content. Raises `DataError` (exit code 3) for one that is damaged, no file, or called what leads away."""
        why, opens, size = _objection(self.member), self.member.open, self.member.size
        if why is None and opens is not None:
            try:
                with self.turn, opens() as opened:
                    content = opened.read(size + 1)  # asked for one byte more, a zip checks its sum
                if len(content) == size:
                    return BytesIO(content)
                why = "it is damaged (its archive says another size)"
            except DAMAGE as error:
                why = why_damaged(error)
            except OSError as error:
                why = error.strerror or why_damaged(error)
        raise DataError("cannot read the image", file=self.name, why=why)


def _objection(member: Member) -> str | None:
    """Why a member is not even opened."""
    most = int(limit(BYTES)) // MOST_SHARE
    try:
        parts_of(member.name)
    except ValueError as error:
        return str(error)
    if member.open is None:
        return "it is a link or a device, and no file"
    return f"it has {member.size:,} bytes, more than {most:,}" if member.size > most else None


def holds_members(path: Path) -> bool:
    """Whether a file is an archive, by its content; by its name where that does not even begin as a picture."""
    if begins_as_archive(path):
        return True
    if not is_archive_name(path) or not path.is_file():
        return False
    with suppress(DataError):
        check_header(path)
        return False
    return True


def iter_packed(archive: Path) -> Iterator[tuple[str, Packed | DataError]]:
    """The files in an archive by their names, in its order, but for hidden ones and those of systems.

    Where it is cut off or damaged, its own name and the reason come behind what could be found.
    """
    turn = Lock()
    try:
        for member in members(archive):
            parts = [part for part in member.name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
            if not parts or not is_aside(parts):
                name = f"{archive}{os.sep}{member.name}"
                yield name, Packed(name, member, turn)
    except (*DAMAGE, OSError) as error:
        why = (isinstance(error, OSError) and error.strerror) or why_damaged(error)
        yield str(archive), _refusal(archive, why)
    except ValueError as error:
        yield str(archive), _refusal(archive, str(error))


def _refusal(archive: Path, why: str) -> DataError:
    return DataError("cannot read the archive", file=archive, why=why)
