"""Rows of a sweep: the oracle is the recipe that `load_recipe` makes with the same changes."""

import pytest

import resnetkit as rk
from resnetkit.errors import UsageError
from resnetkit.training.grid import make_rows


def test_rows_are_all_combinations() -> None:
    rows = make_rows("digits", None, {"optim.lr": [0.01, 0.1], "model": ["resnet20", "resnet32"]}, {"epochs": 3})
    said = [(row.recipe.optim.lr, row.recipe.model.name, row.recipe.epochs) for row in rows]
    assert said == [(0.01, "resnet20", 3), (0.01, "resnet32", 3), (0.1, "resnet20", 3), (0.1, "resnet32", 3)]
    changes = {"optim": {"lr": 0.1}, "model": {"name": "resnet32"}, "epochs": 3}
    assert rows[3].recipe == rk.load_recipe("digits", changes)
    assert rows[3].changes == changes


def test_equal_rows_are_one_and_text_is_what_it_says() -> None:
    assert len(make_rows("digits", None, {"optim.lr": [0.1, "0.10", "1e-1"]}, {})) == 1


def test_a_key_that_does_nothing_in_a_row_is_left_out_of_it() -> None:
    rows = make_rows("photos", None, {"recipe": ["head", "finetune"], "optim.lr": [0.01, 0.1]}, {})
    assert [(row.recipe.transfer.mode, row.changes) for row in rows] == [
        ("head", {}),
        ("finetune", {"optim": {"lr": 0.01}}),
        ("finetune", {"optim": {"lr": 0.1}}),
    ]


def test_a_rows_name_says_its_settings_and_its_number_only_what_decides() -> None:
    one = make_rows("digits", None, {"optim.lr": [0.1, 1e30], "augment.flip": [True]}, {})
    other = make_rows("elsewhere/digits", "digits", {"seed": [0, 1]}, {"device": "cpu", "augment": {"flip": True}})
    lr = rk.load_recipe("digits").optim.lr
    assert [row.name.rpartition("-")[0] for row in one] == ["lr-0.1", "lr-1e+30"]
    assert [row.name.rpartition("-")[0] for row in other] == ["seed-0", "seed-1"]
    assert (one[0].key == other[0].key) == (lr == 0.1)
    assert make_rows("digits", None, {"augment.flip": [True]}, {})[0].key == other[0].key


def test_recipes_that_hold_out_other_images_are_refused() -> None:
    mine = rk.load_recipe("digits", {"data": {"validation": 0.3}})
    with pytest.raises(UsageError, match="the recipes differ in data"):
        make_rows("digits", None, {"recipe": ["digits", mine]}, {})
