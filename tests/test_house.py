"""The house against its own documents: the trees in README.md and CONTRIBUTING.md are those of the source."""

import ast
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


def test_files_are_short_enough_to_be_read() -> None:
    for file in SOURCE.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 450, file
