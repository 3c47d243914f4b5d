"""Flags with several values."""

import pytest

from resnetkit.cli.keys import GridFlags, alternatives
from resnetkit.errors import UsageError
from resnetkit.recipes.schema import keys_on_resume

ALTERNATIVES = {
    ("optim.lr", "0.03,0.1"): ["0.03", "0.1"],
    ("optim.lr", "0.1"): ["0.1"],
    ("optim.lr", " 0.03 ; 0.1 "): ["0.03", "0.1"],
    ("model.depths", "1,1,1"): [["1", "1", "1"]],
    ("model.depths", "1,1,1;[2, 2, 2]"): [["1", "1", "1"], ["2", "2", "2"]],
    ("optim.milestones", "50%,75%;60%"): [["50%", "75%"], ["60%"]],
    ("weights", "one,two.safetensors;three"): ["one,two.safetensors", "three"],
    ("augment.extra", '[["RandomInvert"], ["ColorJitter"]]'): ['[["RandomInvert"], ["ColorJitter"]]'],
    ("data.label_from", "(a|b),"): ["(a|b),"],
}


@pytest.mark.parametrize(("given", "expected"), ALTERNATIVES.items(), ids=str)
def test_commas_part_values_and_semicolons_those_that_have_commas(given: tuple[str, str], expected: list) -> None:
    assert alternatives(*given) == expected


def test_nothing_is_no_value() -> None:
    with pytest.raises(UsageError, match=r"--optim\.lr has no value"):
        alternatives("optim.lr", " , ")


def test_every_key_of_a_recipe_can_be_given(cli) -> None:
    """The oracle is the schema."""
    said = cli("sweep", "--help-all").out
    for key in keys_on_resume():
        assert (f"--{key.replace('_', '-')} " in said) != key.startswith("expect."), key


def test_a_list_on_the_command_line_stays_whole(cli, tmp_path) -> None:
    """It is refused as one recipe is: three numbers are the depths of three stages, and there are two widths."""
    said = cli("sweep", "--model.depths", "1,1,1", "--model.widths", "8,16", "--out", tmp_path / "out")
    assert (said.code, said.out) == (2, "")
    assert "widths" in said.err


def test_a_flag_keeps_its_keys_and_only_those_that_were_given() -> None:
    flags = GridFlags.model_validate({"seed": "0,1", "optim": {"lr": "0.1"}})
    assert flags.alternatives() == {"seed": ["0", "1"], "optim.lr": ["0.1"]}
