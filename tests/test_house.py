"""The house against its own documents: the trees in README.md and CONTRIBUTING.md are those of the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "resnetkit"
FOLDERS = sorted(file.parent for file in SOURCE.rglob("__init__.py") if file.parent != SOURCE)


def purpose(file: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def rooms(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")


def floors() -> Iterator[str]:
    """README.md: a line for each folder, then for what stands beside them."""
    for folder in FOLDERS:
        yield f"{folder.relative_to(SOURCE).as_posix() + '/':<14}{purpose(folder / '__init__.py')}"
    for file in rooms(SOURCE):
        if not file.name.startswith("__"):
            yield f"{file.name:<18}{purpose(file)}"


def all_rooms() -> Iterator[str]:
    """CONTRIBUTING.md: every file with the first line of its docstring."""
    for folder in (SOURCE, *FOLDERS):
        yield f"{folder.relative_to(SOURCE.parent).as_posix()}/"
        for file in rooms(folder):
            yield f"    {file.name:<18}{purpose(file)}"


@pytest.mark.parametrize(("document", "tree"), [("README.md", floors), ("CONTRIBUTING.md", all_rooms)])
def test_the_tree_in_a_document_is_that_of_the_source(document: str, tree) -> None:
    expected = "\n".join(tree())
    assert expected in (ROOT / document).read_text(encoding="utf-8"), f"{document} should have:\n{expected}"


def test_every_folder_says_by_which_door_one_enters() -> None:
    for folder in FOLDERS:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "Enter by `" in text, folder
        doors = [name for name in text.split("Enter by")[1].split(". ")[0].split("`")[1::2] if "." in name]
        for door in doors:
            room, name = door.rsplit(".", 1)
            assert f" {name}" in (folder / f"{room}.py").read_text(encoding="utf-8"), door


def test_tests_stand_where_what_they_test_stands() -> None:
    known = {folder.relative_to(SOURCE).as_posix() for folder in FOLDERS} | {"faults"}
    for file in (ROOT / "tests").rglob("test_*.py"):
        place = file.parent.relative_to(ROOT / "tests").as_posix()
        assert place == "." or place in known, file


_PLACES = ("*.md", "docs/*.md", "docs/*.sbatch", "tests/*/*.md", "results/**/*.md")
DOCUMENTS = sorted(file for place in _PLACES for file in ROOT.glob(place))
NAMED_FILE = re.compile(r"(?<![\w/.-])(?:[\w-]+/)+[\w-]+\.(?:py|md|toml|sbatch|json)\b(?:::(\w+)(…?))?")
OF_OTHERS = ("runs/", "photos/", "shards/", "model/", "checkpoints/")
"""Folders of users: what documents name in them is no file of ours."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_file_and_test_that_a_document_names_is_there(document: Path) -> None:
    """From the root, from `tests/`, from `src/resnetkit/`, or from where the document is."""
    for found in NAMED_FILE.finditer(document.read_text(encoding="utf-8")):
        name = found[0].partition("::")[0]
        places = [root / name for root in (ROOT, ROOT / "tests", SOURCE, SOURCE.parent, document.parent)]
        file = next((place for place in places if place.is_file()), None)
        assert file or name.startswith(OF_OTHERS), found[0]
        if found[1]:
            ends = "" if found[2] else r"\("
            assert re.search(rf"def {found[1]}{ends}", file.read_text(encoding="utf-8")), found[0]


def test_files_are_short_enough_to_be_read() -> None:
    for file in SOURCE.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 450, file
