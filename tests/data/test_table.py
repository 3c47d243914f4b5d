"""Tables of pictures against folders of the same pictures, and every fault of a table by the number of its row."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from pictures import draw, fill
from resnetkit.data.fingerprint import Fingerprint
from resnetkit.data.labelling import Labelling
from resnetkit.data.load import load_data
from resnetkit.data.sources import find_layout
from resnetkit.doctor.check import check
from resnetkit.errors import DataError, UsageError
from resnetkit.recipes.schema import DataRecipe

Rows = Sequence[Sequence[str]]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder of a table's pictures: 8 of each of three colours."""
    folder = tmp_path / "set" / "img"
    folder.mkdir(parents=True)
    for colour in ("blue", "green", "red"):
        for number in range(8):
            draw(colour, number).save(folder / f"{colour}-{number}.png")
    return folder.parent


def pairs(folder: Path) -> list[tuple[str, str]]:
    return [(f"img/{path.name}", path.name.partition("-")[0]) for path in sorted((folder / "img").iterdir())]


def write(folder: Path, rows: Rows, header: Sequence[str] = ("path", "label"), name: str = "labels.csv") -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return folder / name


def refusal(file: Path, **how: str) -> str:
    with pytest.raises((DataError, UsageError)) as error:
        load_data(str(file), DataRecipe(name=str(file), **how))
    said = str(error.value)
    assert "\n" not in said
    assert "\x1b" not in said
    assert len(said) < 700
    return said


def test_a_table_is_held_out_and_read_as_a_folder_of_the_same_pictures(flat: Path, tmp_path: Path) -> None:
    table = load_data(str(write(flat, pairs(flat)[::-1])))
    folder = load_data(str(fill(tmp_path / "folder", 8)))
    assert table.classes == folder.classes
    for one, other in ((table.train, folder.train), (table.validation, folder.validation), (table.test, folder.test)):
        assert sorted(one.contents()) == sorted(other.contents())
        assert sorted(one.labels.tolist()) == sorted(other.labels.tolist())
    assert "labels.csv: pictures by path, classes by label" in table.notes


@pytest.mark.parametrize(
    "header", [("file_name", "Species"), ("Image Path", "class-name"), ("id", "y"), ("img", "target")]
)
def test_usual_names_of_columns(flat: Path, header: tuple[str, str]) -> None:
    assert len(load_data(str(write(flat, pairs(flat), header))).classes) == 3


def test_columns_that_are_given(flat: Path) -> None:
    rows = [("train" if path[-5] < "6" else "val", label, path) for path, label in pairs(flat)]
    file = write(flat, rows, ("when", "what", "where"))
    how = {"path_column": "where", "label_column": "what", "split_column": "when"}
    data = load_data(str(file), DataRecipe(name=str(file), **how))
    assert (len(data.train), len(data.validation), data.test) == (18, 6, None)
    assert "no column of paths is known" in refusal(file)
    assert "columns are when, what, where" in refusal(file)
    assert "--data.label-column" in refusal(file, path_column="where")
    assert "Try: where" in refusal(file, path_column="wher")


def test_a_split_column_is_taken_unless_none_is_wanted(flat: Path) -> None:
    rows = [(path, label, ("Training", "valid", "TEST")[int(path[-5]) % 3]) for path, label in pairs(flat)]
    file = write(flat, rows, ("path", "label", "split"))
    data = load_data(str(file))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [9, 9, 6]
    data = load_data(str(file), DataRecipe(name=str(file), split_column="none"))
    assert any(note.startswith("no held-out rows in") for note in data.notes)


def test_numbers_are_names_in_the_order_of_the_numbers(flat: Path) -> None:
    number = {"blue": "10", "green": "9", "red": "-1"}
    data = load_data(str(write(flat, [(path, number[label]) for path, label in pairs(flat)])))
    assert data.classes == ("-1", "9", "10")


def test_a_missing_suffix_is_found_where_one_picture_has_the_name(flat: Path) -> None:
    rows = [(Path(path).stem, label) for path, label in pairs(flat)]
    file = write(flat, rows, ("id", "breed"))
    assert f"--data.image-root {flat / 'img'}" in refusal(file)
    how = {"image_root": str(flat / "img")}
    assert len(load_data(str(file), DataRecipe(name=str(file), **how)).train) > 9
    draw("red", 99).save(flat / "img" / "red-3.jpg")
    assert "row 21 of labels.csv names red-3, and there are red-3.jpg and red-3.png" in refusal(file, **how)


def test_missing_files_are_left_out_and_named_until_they_are_many(flat: Path) -> None:
    rows = pairs(flat)
    (flat / rows[4][0]).unlink()
    data = load_data(str(write(flat, rows)))
    assert data.unreadable == {str(flat / rows[4][0]): "no such file (row 6 of labels.csv)"}
    for path, _ in rows[5:9]:
        (flat / path).unlink()
    assert "5 of 24 images cannot be read" in refusal(flat / "labels.csv")
    assert "(row 6 of labels.csv)" in refusal(flat / "labels.csv")


def test_rows_without_a_label_or_a_file_and_rows_that_repeat_are_counted(flat: Path) -> None:
    rows = pairs(flat)
    file = write(flat, [*rows[:-1], (rows[-1][0], ""), ("", "red"), rows[0]])
    data = load_data(str(file))
    assert sum(map(len, (data.train, data.validation, data.test))) == 23
    said = "\n".join(data.notes)
    assert "1 files without a label in the table, such as img/red-7.png (row 25 of labels.csv)" in said
    assert "1 rows that name no file are left out: row 26 of labels.csv names no file" in said
    assert "1 rows that repeat another are left out: row 27 of labels.csv says what row 2 of labels.csv says" in said


def test_one_file_with_two_labels_or_in_two_splits_is_refused(flat: Path) -> None:
    rows = pairs(flat)
    said = refusal(write(flat, [*rows, (f"./{rows[3][0]}", "red")]))
    assert "row 5 of labels.csv says that blue-3.png is blue, and row 26 of labels.csv that it is red" in said
    of = [(path, label, "train") for path, label in rows]
    said = refusal(write(flat, [*of, (*rows[0], "test")], ("path", "label", "split")))
    assert "row 2 of labels.csv has blue-0.png in train, and row 26 of labels.csv in test" in said
    said = refusal(write(flat, [*of, (*rows[0], "holdout 2")], ("path", "label", "split")))
    assert "row 26 of labels.csv says holdout 2" in said


def test_one_picture_under_two_names_with_two_labels_is_said_with_its_rows(flat: Path) -> None:
    (flat / "img" / "zz.png").write_bytes((flat / "img" / "blue-0.png").read_bytes())
    said = "\n".join(load_data(str(write(flat, [*pairs(flat)[:-1], ("img/zz.png", "red")]))).notes)
    assert "2 images are in two classes, so labels are wrong" in said
    assert "img/zz.png (row 26 of labels.csv)" in said


def test_one_hot_columns_are_named_with_the_remedy(flat: Path) -> None:
    names = ("blue", "green", "red")
    rows = [(path, *(str(int(label == name)) for name in names)) for path, label in pairs(flat)]
    said = refusal(write(flat, rows, ("image_id", *names)))
    assert "spread over columns of 0 and 1" in said
    assert "t['label'] = t[['blue', 'green', 'red']].idxmax(axis=1)" in said


@pytest.mark.parametrize(
    ("path", "label", "said"),
    [
        ("../secret.png", "red", "row 2 of labels.csv names ../secret.png, which is not below"),
        ("img/../../secret.png", "red", "leads out"),
        ("/etc/passwd", "red", "row 2 of labels.csv names /etc/passwd"),
        ("https://example.com/a.jpg", "red", "a path is no path of a file"),
        ("=HYPERLINK(1)", "red", "a path is no path of a file"),
        ("img/red-0.png", "=1+cmd|'/c calc'!A0", "the formula"),
        ("img/red-0.png", "\x1b[31mred", r"\x1b[31mred"),
        ("img/red-0.png", "a\nb", "holds what no name"),
        ("img/red-0.png", "x" * 300, "300 characters"),
    ],
)
def test_hostile_rows_end_in_one_line(flat: Path, path: str, label: str, said: str) -> None:
    (flat.parent / "secret.png").write_bytes((flat / "img" / "red-0.png").read_bytes())
    found = refusal(write(flat, [(path, label), *pairs(flat)]))
    assert said in found
    assert "row 2 of labels.csv" in found


def test_absolute_paths_below_the_folder_are_taken_and_windows_separators_too(flat: Path) -> None:
    rows = [(str(flat.resolve() / path), label) for path, label in pairs(flat)[:12]]
    rows += [(path.replace("/", "\\"), label) for path, label in pairs(flat)[12:]]
    data = load_data(str(write(flat, rows)))
    assert not data.unreadable
    assert len(data.train) > 9


def test_a_table_without_a_header_or_classes_is_told(flat: Path) -> None:
    rows = pairs(flat)
    assert "a first row such as path,label" in refusal(write(flat, rows[1:], rows[0]))
    said = refusal(write(flat, [(path, str(number)) for number, (path, _) in enumerate(rows)], ("path", "y")))
    assert "y is another in each of 24 rows" in said
    assert "it is empty" in refusal(write(flat, [], ()))
    assert "no such file" in refusal(flat / "nothing.csv").lower()


def test_a_folder_with_metadata_is_its_table_and_so_are_its_splits(flat: Path, tmp_path: Path) -> None:
    write(flat, pairs(flat), ("file_name", "label"), "metadata.csv")
    assert load_data(str(flat)).classes == ("blue", "green", "red")
    whole = tmp_path / "whole"
    for split, numbers in (("train", range(5)), ("test", range(5, 8))):
        (whole / split).mkdir(parents=True)
        names = [f"{colour}-{number}.png" for colour in ("blue", "red") for number in numbers]
        for name in names:
            (whole / split / name).write_bytes((flat / "img" / name).read_bytes())
        rows = [(name, name.partition("-")[0]) for name in names]
        write(whole / split, rows, ("file_name", "label"), "metadata.csv")
    data = load_data(str(whole))
    assert (len(data.train) + len(data.validation), len(data.test)) == (10, 6)


def test_the_doctor_lists_all_troubles_with_their_rows(flat: Path) -> None:
    rows = pairs(flat)
    (flat / rows[7][0]).unlink()
    extra = [(rows[0][0], "red"), rows[1], ("img/gone.png", "red"), ("", "red"), (rows[-1][0], "")]
    found = check(write(flat, [*rows[:-1], *extra]), cache=None)
    said = {kind: [each.text for each in found.findings if each.kind == kind] for kind in found.counts}
    assert said["two-labels"] == [
        "row 2 of labels.csv says that blue-0.png is blue, and row 25 of labels.csv that it is red"
    ]
    assert said["same-row"] == ["row 26 of labels.csv says what row 3 of labels.csv says"]
    assert said["unreadable"] == ["no such file (row 9 of labels.csv)", "no such file (row 27 of labels.csv)"]
    assert said["no-path"] == ["row 28 of labels.csv names no file"]
    assert said["no-label"] == ["no label (row 29 of labels.csv)"]
    assert found.serious


def test_a_run_on_a_table_is_scored_resumed_and_remembers_its_pictures(flat: Path, tmp_path: Path, cli) -> None:
    file, out = write(flat, pairs(flat)), tmp_path / "run"
    settings = {"recipe": "scratch", "epochs": 1, "quiet": True, "data": {"image_size": 16}, **TINY}
    classifier = rk.train(file, out=out, **settings)
    assert classifier.metrics["count"] == 3
    assert rk.evaluate(classifier, file)["seen"] > 0
    other = fill(tmp_path / "folder", 8)
    assert rk.evaluate(classifier, other)["seen"] == rk.evaluate(classifier, file)["seen"]
    answer = cli("evaluate", out, write(flat, pairs(flat), ("path", "what"), "other.csv"), "--json")
    assert answer.code == 3
    answer = cli("evaluate", out, flat / "other.csv", "--data.label-column", "what", "--json", "--include-seen")
    assert json.loads(answer.out)["count"] == 24
    write(flat, [(path, {"blue": "red", "red": "blue"}.get(label, label)) for path, label in pairs(flat)])
    with pytest.raises(UsageError, match="the images have changed since the run began"):
        rk.train(file, out=out, resume=True, **settings)


def test_the_order_of_rows_changes_nothing_and_a_label_does(flat: Path) -> None:
    rows = pairs(flat)
    before = Fingerprint.of(load_data(str(write(flat, rows)))).digest
    assert Fingerprint.of(load_data(str(write(flat, [*rows[::-1], rows[3]])))).digest == before
    changed = [*rows[:-1], (rows[-1][0], "blue")]
    assert Fingerprint.of(load_data(str(write(flat, changed)))).digest != before


def test_shards_of_a_table(flat: Path, tmp_path: Path) -> None:
    description = rk.shard(write(flat, pairs(flat)), tmp_path / "shards")
    assert description["classes"] == ["blue", "green", "red"]
    assert sum(part["samples"] for parts in description["splits"].values() for part in parts) == 24


def test_labels_from_names(flat: Path) -> None:
    draw("red", 50).save(flat / "img" / "other.png")
    layout = find_layout(flat, Labelling(label_from="^(?P<kind>x)?(?P<label>blue|red)-"))
    assert {name: len(paths) for name, paths in layout.members["all"].items()} == {"blue": 8, "red": 8}
    data = load_data(str(flat), DataRecipe(name=str(flat), label_from="(blue|red)-"))
    assert data.classes == ("blue", "red")
    assert any("9 files whose names the pattern does not match, such as img/green-0.png" in note for note in data.notes)
    for pattern, why in (("(blue", "missing )"), ("blue|red", "it has no group")):
        with pytest.raises(UsageError, match="label-from") as error:
            load_data(str(flat), DataRecipe(name=str(flat), label_from=pattern))
        assert why in str(error.value)
    said = refusal(flat, label_from="(cow)")
    assert "25 files whose names the pattern does not match, such as img/blue-0.png" in said


def test_labels_from_names_keep_the_splits(flat: Path) -> None:
    for split, numbers in (("train", "0123"), ("val", "4567")):
        (flat / split).mkdir()
        for path in (flat / "img").glob(f"*-[{numbers}].png"):
            path.rename(flat / split / path.name)
    data = load_data(str(flat), DataRecipe(name=str(flat), label_from="(blue|red|green)"))
    assert (len(data.train), len(data.validation)) == (12, 12)
