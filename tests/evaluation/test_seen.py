"""A score says nothing of pictures that were learnt: they are found by content, left out, and counted."""

import shutil
from pathlib import Path

import pytest
import safetensors.numpy

import resnetkit as rk
from conftest import TINY
from pictures import draw, fill
from resnetkit.data.load import load_data
from resnetkit.errors import DataError
from resnetkit.recipes.schema import DataRecipe

TWO = ("blue", "red")
SMALL = {"model": TINY["model"] | {"name": "resnet20"}, "data": {"image_size": 16, "workers": 0, "batch_size": 8}}


@pytest.fixture(scope="module", params=["in memory", "on disk"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder without splits, and a run on it."""
    home = tmp_path_factory.mktemp("seen")
    fill(home / "photos", 15, TWO)
    if request.param == "on disk":
        draw("red", 77, (90, 70)).save(home / "photos" / "red" / "large.png")
    rk.train(home / "photos", recipe="scratch", out=home / "run", quiet=True, epochs=2, **SMALL)
    return home / "photos", home / "run"


def test_only_what_was_held_out_is_scored_wherever_the_folder_lies(trained, tmp_path: Path, monkeypatch) -> None:
    photos, run = trained
    held_out = rk.load(run).metrics
    assert 0 < held_out["count"] < 15
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    monkeypatch.chdir(photos.parent)
    for place in ("photos", photos.resolve(), copy):
        found = rk.evaluate(rk.load(run), place)
        assert (found["count"], found["top1"]) == (held_out["count"], held_out["top1"])
        assert found["count"] + found["seen"] == sum(1 for _ in photos.rglob("*.png"))
    assert rk.evaluate(rk.load(run), copy, include_seen=True)["seen"] == 0


def test_pictures_that_were_added_are_new_and_no_others_are(trained, tmp_path: Path) -> None:
    photos, run = trained
    more = tmp_path / "more"
    shutil.copytree(photos, more)
    fill(more, 2, TWO, first=500)
    before, after = (rk.evaluate(rk.load(run), place) for place in (photos, more))
    assert after["count"] == before["count"] + 4
    assert after["seen"] == before["seen"]


def test_renamed_copies_in_a_test_folder_are_found(trained, tmp_path: Path) -> None:
    photos, run = trained
    fill(tmp_path / "test", 3, TWO, first=900)
    learnt = set((photos / "red").iterdir())
    for number, path in enumerate(sorted(learnt)):
        shutil.copy(path, tmp_path / "test" / "red" / f"copy {number}.png")
    found = rk.evaluate(rk.load(run), tmp_path / "test")
    assert found["seen"] > 0
    assert found["count"] + found["seen"] == 6 + len(learnt)


def test_a_score_on_nothing_but_what_was_seen_is_refused(trained, tmp_path: Path, cli) -> None:
    photos, run = trained
    data = load_data(str(photos), DataRecipe(name=str(photos)))
    for place in range(len(data.train)):
        path = Path(data.train.name(place))
        (tmp_path / "seen" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "seen" / path.parent.name)
    with pytest.raises(DataError, match=rf"all {len(data.train)} pictures were seen in training .*Try: other pictures"):
        rk.evaluate(rk.load(run), tmp_path / "seen")
    assert cli("evaluate", run, tmp_path / "seen").code == 3
    assert cli("evaluate", run, tmp_path / "seen", "--include-seen").code == 0


def test_a_folder_of_splits_is_scored_on_its_own_validation(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = rk.train(photos, recipe="scratch", out=run, quiet=True, epochs=1, **SMALL)
    found = rk.evaluate(rk.load(run), photos)
    assert (found["split"], found["count"], found["seen"]) == ("validation", done.metrics["count"], 0)


def test_what_a_former_version_remembers_is_known_too(trained, tmp_path: Path) -> None:
    photos, run = trained
    old = tmp_path / "old"
    shutil.copytree(run, old)
    tensors = safetensors.numpy.load_file(old / "images.safetensors")
    safetensors.numpy.save_file({"images": tensors["images"]}, old / "images.safetensors")
    expected, found = (rk.evaluate(rk.load(each), photos) for each in (run, old))
    assert (found["count"], found["seen"]) == (expected["count"], expected["seen"])
