import json
import math
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torchvision import transforms

import resnetkit as rk
from conftest import TINY
from pictures import draw, fill
from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.errors import DataError, UsageError
from resnetkit.evaluation.metrics import Tally
from resnetkit.evaluation.score import score
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import choose


def test_figures_match_scikit_learn(digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    test = load_data("digits").test
    report = rk.evaluate(classifier, "digits")
    probabilities = replace(classifier, temperature=1.0).probabilities(test.pixels).double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    labels = test.labels.numpy()
    assert report["count"] == 359
    assert report["top1"] == pytest.approx(100 * accuracy_score(labels, probabilities.argmax(1)), abs=1e-4)
    assert report["top5"] == pytest.approx(100 * top_k_accuracy_score(labels, probabilities, k=5), abs=1e-4)
    assert report["loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 359, 1000])
def test_figures_do_not_depend_on_the_batch_size(batch_size: int, digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    expected = score(classifier, load_data("digits").test)
    figures = score(classifier, load_data("digits").test, batch_size=batch_size)
    assert figures.loss == pytest.approx(expected.loss, rel=1e-5)
    assert (figures.top1, figures.top5, figures.count) == (expected.top1, expected.top5, 359)


def test_a_tally_weighs_images_not_batches() -> None:
    tally = Tally(3, torch.device("cpu"))
    tally.update(torch.tensor([[9.0, 0, 0]]), torch.tensor([0]), torch.tensor(4.0))
    tally.update(torch.tensor([[9.0, 0, 0]] * 3), torch.tensor([0, 1, 2]), torch.tensor(8.0))
    assert tally.compute().to_dict() == {"count": 4, "loss": 7.0, "top1": 50.0, "top5": 100.0}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, rk.Classifier]:
    folder = fill(tmp_path_factory.mktemp("photos"), 12)
    classifier = rk.train(
        str(folder),
        "scratch",
        out=tmp_path_factory.mktemp("run-of-colours") / "run",
        quiet=True,
        epochs=12,
        data={"image_size": 16, "resize": 20, "batch_size": 8},
        model={"name": "resnet20", **TINY["model"]},
    )
    return folder, classifier


def test_only_what_was_held_out_is_scored_on_the_folder_it_was_trained_on(colours) -> None:
    folder, classifier = colours
    report = rk.evaluate(classifier, folder)
    assert (report["split"], report["count"]) == ("test", classifier.metrics["count"])
    assert report["top1"] == classifier.metrics["top1"]


def test_another_folder_is_scored_whole_with_classes_matched_by_name(colours, tmp_path: Path) -> None:
    _, classifier = colours
    fill(tmp_path, 5, ("red", "green"), first=500)  # no blue: labels must not shift
    report = rk.evaluate(classifier, tmp_path)
    assert (report["count"], report["top1"]) == (10, 100)


def test_unknown_classes_are_refused(colours, tmp_path: Path) -> None:
    _, classifier = colours
    fill(tmp_path, 2, ("red",))
    (tmp_path / "red").rename(tmp_path / "crimson")
    with pytest.raises(DataError, match=r"does not know crimson .*its classes are blue, green, red"):
        rk.evaluate(classifier, tmp_path)
    with pytest.raises(DataError, match="digits has 1 channels and the classifier takes 3"):
        rk.evaluate(classifier, "digits")


def test_a_class_in_another_unicode_form_is_matched_with_a_note(colours, tmp_path: Path, caplog) -> None:
    """The oracle is the same folder under the name that the classifier knows."""
    composed, decomposed = "Café", "Cafe\u0301"
    classifier = replace(colours[1], classes=(composed, "green", "red"))
    fill(tmp_path / "same", 3, first=700)
    (tmp_path / "same" / "blue").rename(tmp_path / "same" / composed)
    fill(tmp_path / "other", 3, first=700)
    (tmp_path / "other" / "blue").rename(tmp_path / "other" / decomposed)
    expected = rk.evaluate(classifier, tmp_path / "same")
    assert not caplog.records
    found = rk.evaluate(classifier, tmp_path / "other")
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert r"'Cafe\u0301' for 'Caf\xe9'): taken for one class" in caplog.text


def test_forms_that_may_be_either_class_are_refused_and_told_apart(colours, tmp_path: Path) -> None:
    # Three forms that look the same: ṩ in one code point, in two, and in three.
    one, two, three = "\u1e69", "\u1e63\u0307", "s\u0323\u0307"
    classifier = replace(colours[1], classes=(one, two, "red"))
    fill(tmp_path, 2, ("red",))
    (tmp_path / "red").rename(tmp_path / three)
    with pytest.raises(DataError, match=r"does not know .* \('s\\u0323\\u0307'\) .*its classes are .*'\\u1e69'"):
        rk.evaluate(classifier, tmp_path)


def test_numbered_folders_are_in_natural_order_for_a_head_that_nobody_has_named(tmp_path: Path, caplog) -> None:
    """A head that knows each of twelve shades by construction: its rows are the features that the network gives them.

    Where labels were in the order of a folder's names (1, 10, 11, 12, 2), at most one of twelve would be right.
    """
    network = rk.create_model("resnet20", num_classes=12)
    shades = [Image.new("RGB", (16, 16), (20 * number, 128, 255 - 20 * number)) for number in range(12)]
    look = Preprocess(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    with torch.inference_mode():
        pixels = torch.stack([look.pixels(shade) for shade in shades])
        head, network.fc = network.fc, torch.nn.Identity()
        features = network.eval()(look.normalise(pixels))
        network.fc = head
    head.weight.data, head.bias.data = features.clone(), -features.square().sum(1) / 2
    torch.save(network.state_dict(), tmp_path / "foreign.pt")
    classifier = rk.load(
        tmp_path / "foreign.pt", model="resnet20", mean=look.mean, std=look.std, size=16, device="cpu", precision="fp32"
    )
    assert not classifier.named
    caplog.clear()
    for number, shade in enumerate(shades):
        (tmp_path / "data" / str(number + 1)).mkdir(parents=True)
        shade.save(tmp_path / "data" / str(number + 1) / "x.png")
    assert rk.evaluate(classifier, tmp_path / "data")["top1"] == 100
    assert "classes 1 to 12 are taken in the order of their numbers" in caplog.text
    caplog.clear()
    for number in range(12):
        (tmp_path / "data" / str(number + 1)).rename(tmp_path / "data" / f"{number + 1:02d}")
    assert rk.evaluate(classifier, tmp_path / "data")["top1"] == 100
    assert not caplog.records


def test_ten_crops_of_classes_that_mirror_each_other_are_worth_a_word(colours, tmp_path: Path, caplog) -> None:
    classifier = replace(colours[1], classes=("left", "middle", "right"))
    fill(tmp_path, 1, first=900)
    for colour, name in zip(("blue", "green", "red"), classifier.classes, strict=True):
        (tmp_path / colour).rename(tmp_path / name)
    rk.evaluate(classifier, tmp_path, crops=10)
    assert "classes left and right mirror each other" in caplog.text


def test_unreadable_images_are_not_counted_but_named(colours, tmp_path: Path) -> None:
    _, classifier = colours
    fill(tmp_path, 3, first=700)
    (tmp_path / "red" / "broken.png").write_bytes(b"")
    report = rk.evaluate(classifier, tmp_path)
    assert report["count"] == 9
    assert report["unreadable"] == {str(tmp_path / "red" / "broken.png"): "the file is empty"}


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_files_that_vanish_before_they_are_scored_are_lost_and_the_others_count(
    batch_size: int, colours, tmp_path: Path
) -> None:
    """With a batch of one, nothing is left of some batches. Oracle: the score of a folder without those files."""
    _, classifier = colours
    fill(tmp_path, 3, first=700)
    draw("red", 800, (70, 60)).save(tmp_path / "red" / "odd.png")  # of another size: nothing is kept in memory
    split = load_data(str(tmp_path), whole=True).test
    gone = [tmp_path / "blue" / "700.png", tmp_path / "red" / "odd.png"]
    for path in gone:
        path.unlink()
    found = score(classifier, split, batch_size=batch_size)
    assert found.lost == {str(path): "no such file" for path in gone}
    expected = score(classifier, split.take(np.arange(1, len(split) - 1)), batch_size=batch_size)
    assert (found.count, found.top1, expected.lost) == (8, expected.top1, {})
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    nothing = score(classifier, split.take(np.array([0])), batch_size=batch_size)
    assert (nothing.count, math.isnan(nothing.top1), len(nothing.lost)) == (0, True, 1)


def test_predictions_equal_what_evaluation_counts(colours, tmp_path: Path) -> None:
    folder, classifier = colours
    files = sorted((folder / "red").iterdir())
    rows = rk.predict(classifier, files)
    top1 = np.mean([row.label == "red" for row in rows])
    fill(tmp_path, 0)
    (tmp_path / "red").rmdir()
    (tmp_path / "red").symlink_to(folder / "red")
    for empty in ("blue", "green"):
        (tmp_path / empty).rmdir()
    assert rk.evaluate(classifier, tmp_path)["top1"] == pytest.approx(100 * top1)


def test_ten_crops_match_torchvision(tmp_path: Path, photos: Path) -> None:
    """The oracle: torchvision's ten_crop on PIL images, the network one crop at a time, probabilities averaged."""
    torch.manual_seed(0)
    preprocess = Preprocess(24, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 32)
    network = rk.create_model("resnet20", num_classes=3, **TINY["model"]).eval()
    classifier = Classifier(network, preprocess, ("blue", "green", "red"), "resnet20", choose("cpu"))
    figures = rk.evaluate(classifier, photos / "val", crops=10)
    look = transforms.Compose([transforms.Resize(32), transforms.TenCrop(24)])
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)])
    losses = []
    for label, name in enumerate(classifier.classes):
        for path in sorted((photos / "val" / name).iterdir()):
            with Image.open(path) as image, torch.inference_mode():
                crops = torch.stack([network(tensor(crop)[None])[0].softmax(0) for crop in look(image)])
            losses.append(-float(crops.mean(0)[label].log()))
    assert figures["count"] == 9
    assert figures["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    (tmp_path / "small").mkdir()
    pixels = fill(tmp_path / "small", 4, ("blue", "red"))  # of one size and small: held in memory
    for path in pixels.rglob("*.png"):
        with Image.open(path) as image:
            image.crop((0, 0, 40, 40)).save(path)
    from_memory = rk.evaluate(classifier, pixels, crops=10)
    assert from_memory["count"] == 8
    with pytest.raises(UsageError, match=r"ten crops would be one .*24 px"):
        rk.evaluate(replace(classifier, preprocess=replace(preprocess, resize=None)), photos / "val", crops=10)


def test_what_a_folder_holds_beside_is_said_and_counted(colours, tmp_path: Path, cli) -> None:
    """A score says on what it is: the lines of training on stderr, and a count for each reason in the JSON."""
    _, classifier = colours
    fill(tmp_path / "test", 3, first=500)
    (tmp_path / "test" / "red" / "scan.dcm").write_bytes(b"x")
    draw("red", 7).save(tmp_path / "test" / "red" / "500_mask.png")
    (tmp_path / "test" / "notes.txt").write_text("x")
    done = cli("evaluate", classifier.folder, tmp_path / "test", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["count"] == 9
    assert report["left_out"] == {
        "that are masks of others": 1,
        "that are DICOM files, which are not read (save them as PNG)": 1,
        "that are no images by their names": 1,
    }
    for line in (
        "left out: 1 files that are masks of others, such as red/500_mask.png",
        "such as red/scan.dcm",
        "notes.txt",
    ):
        assert line in done.err


def test_what_shards_hold_beside_is_said_and_counted(colours, tmp_path: Path, cli) -> None:
    _, classifier = colours
    (tmp_path / "classes.txt").write_text("blue\ngreen\nred\n")
    with tarfile.open(tmp_path / "test-0.tar", "w") as tar:
        for name in ("0.cls", "0.mask.png", "0.png"):
            content = BytesIO(b"2")
            if name.endswith("png"):
                draw("red", 0).save(content, "PNG")
            member = tarfile.TarInfo(name)
            member.size = content.getbuffer().nbytes
            content.seek(0)
            tar.addfile(member, content)
    done = cli("evaluate", classifier.folder, tmp_path, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["left_out"] == {"that have no label of their own": 1}
    assert "1 pictures in the shards have no label of their own and are left out" in done.err


@pytest.mark.parametrize("size", [(16, 16), (300, 280)], ids=["kept in memory", "read from files"])
def test_a_classifier_of_grey_images_scores_colour_pictures_as_it_predicts_them(
    size: tuple[int, int], digits_run: Path, tmp_path: Path
) -> None:
    for number in range(6):
        file = tmp_path / "pictures" / str(number % 2) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw("red", number, size).save(file)
    classifier = rk.load(digits_run)
    found = rk.evaluate(classifier, tmp_path / "pictures")
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    right = sum(
        answer.label == file.parent.name for answer, file in zip(rk.predict(classifier, files), files, strict=True)
    )
    assert (found["count"], found["top1"]) == (6, pytest.approx(100 * right / 6, abs=1e-3))
