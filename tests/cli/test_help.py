"""Help pages: one screen of 80 columns, and all keys with what the recipe for the data in question says."""

from pathlib import Path

import pytest

import resnetkit as rk
from pictures import fill
from resnetkit.cli.app import COMMANDS
from resnetkit.networks.arch import get_arch
from resnetkit.recipes.schema import Recipe, keys_on_resume


def page(cli, *words: object) -> dict[str, str]:
    """Each flag of a help page with its sentence; the oracle is how a reader's eye joins the lines."""
    found, flag = {}, ""
    for line in cli(*words).out.splitlines():
        if line.startswith("  --"):
            flag, _, text = line.strip().partition("  ")
            flag = flag.split()[0]
            found[flag] = text.strip()
        elif line.startswith("      ") and flag:
            found[flag] = f"{found[flag]} {line.strip()}".strip()
        else:
            flag = ""
    return found


@pytest.fixture(autouse=True)
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen(name: str, cli) -> None:
    lines = cli(name, "--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 45


def test_the_main_flags_of_train_are_in_its_help_and_the_others_are_one_flag_away(cli) -> None:
    short, whole = page(cli, "train", "--help"), page(cli, "train", "--help-all")
    main = {"--recipe", "--model", "--weights", "--out", "--resume", "--epochs", "--optim.lr", "--data.batch-size"}
    assert main <= short.keys() < whole.keys()
    assert "--help-all" in cli("train", "--help").out
    assert max(map(len, cli("train", "--help-all").out.splitlines())) <= 80


def test_all_keys_are_flags_with_a_sentence_but_for_what_was_measured(cli) -> None:
    """The oracle is the schema."""
    whole = page(cli, "train", "--help-all")
    for key in keys_on_resume():
        flag = f"--{key.replace('_', '-')}"
        assert (flag in whole) != key.startswith("expect."), flag
        if flag in whole:
            assert len(whole[flag].partition("[")[0].split()) >= 2, flag
    assert not [flag for flag in whole if "empty-" in flag]


@pytest.mark.parametrize("recipe", ["digits", "fashion-mnist", "head", "imagenet-modern", "folder"])
def test_in_brackets_stands_what_the_recipe_for_these_data_says(recipe: str, cli, tmp_path: Path) -> None:
    """The oracle is the recipe itself, and the network's `Arch` for what the recipe leaves to it."""
    fill(tmp_path / "photos", 2, ("red", "blue"))
    words = {"folder": (tmp_path / "photos",), "digits": (), "head": (tmp_path / "photos", "--recipe", "head")}
    whole = page(cli, "train", *words.get(recipe, ("--recipe", recipe)), "--help-all")
    saved = rk.load_recipe("finetune" if recipe == "folder" else recipe)
    arch = get_arch(saved.model.name, **saved.model.model_dump(exclude={"name", "weights"}, exclude_none=True))
    for flag, value in {
        "--optim.lr": saved.optim.lr,
        "--optim.schedule": saved.optim.schedule,
        "--data.batch-size": saved.data.batch_size,
        "--augment.flip": "on" if saved.augment.flip else "off",
        "--augment.crop-scale": " ".join(map(str, saved.augment.crop_scale)),
        "--transfer.mode": saved.transfer.mode,
        "--model.name": saved.model.name,
        "--model.depths": " ".join(map(str, arch.depths)),
        "--model.stem": arch.stem,
    }.items():
        assert whole[flag].endswith(f"[{value}]"), flag


def test_a_flag_before_help_all_is_heeded_and_a_wrong_one_refused(cli) -> None:
    assert page(cli, "train", "--optim.lr", 0.025, "--help-all")["--optim.lr"].endswith("[0.025]")
    done = cli("train", "--recipe", "digitz", "--help-all")
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize("flag", ["--expect.top1", "--data.empty-mean", "--augment.empty-crop-scale"])
def test_there_are_no_flags_for_what_is_none(flag: str, cli) -> None:
    done = cli("train", flag, 3)
    assert done.code == 2
    assert f"unknown option {flag}" in done.err


def test_the_network_of_summary_has_its_keys_behind_help_all(cli) -> None:
    assert not [flag for flag in page(cli, "summary", "--help") if flag.startswith("--model.")]
    whole = page(cli, "summary", "--help-all")
    fields = {f"--model.{field.replace('_', '-')}" for field in Recipe.model_fields["model"].annotation.model_fields}
    assert fields - {"--model.weights"} <= whole.keys()
    assert "--model.weights" not in whole


def test_all_keys_are_shown_where_the_network_is_left_to_us(cli) -> None:
    shown = cli("train", "--help-all", "--model", "auto")
    assert shown.code == 0
    assert "--model.name" in shown.out
