"""The study `tutorials`: its loop against the tutorial's own, written down anew with torchvision and plain PyTorch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch.nn import functional as F

import resnetkit as rk
from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.data.splits import Images
from resnetkit.errors import StorageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import choose
from resnetkit.recipes.schema import DataRecipe
from resnetkit.studies.faults import (
    EPOCHS,
    Faults,
    PrintingNetwork,
    accepts,
    batchnorm_shift,
    bias_gradient,
    count_graphs,
    head_trainer,
    with_old_head,
    write_classes,
)
from resnetkit.studies.laboratory import run_study
from resnetkit.studies.tutorials import NETWORKS, PAIRS, STUDY
from studies.made_up import tutorials as made_up
from studies.tiny import NETS, tiny_study


@pytest.fixture(scope="module")
def images() -> Images:
    """A hundred of the embedded digits, in colour."""
    train = load_data("digits", DataRecipe(name="digits")).train
    assert isinstance(train, Images)
    return Images(train.pixels[:100].expand(-1, 3, -1, -1), train.labels[:100])


def source() -> Classifier:
    torch.manual_seed(0)
    network = rk.create_model("resnet20", **NETS, num_classes=6)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    preprocess = Preprocess(size=16, mean=(0.3,) * 3, std=(0.4,) * 3)
    return Classifier(network, preprocess, tuple("abcdef"), "resnet20", choose("cpu", "fp32"))


def buffers(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.named_buffers()}


@pytest.mark.parametrize("drift", [False, True])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("centre", [False, True])
def test_the_loop_is_the_tutorials_own(images: Images, drift: bool, raw: bool, centre: bool) -> None:
    """Written down again with torchvision's transforms: the same figures and the same head, to rounding."""
    ours = head_trainer(source(), 10, Faults(drift=drift, raw=raw, centre=centre), seed=3)
    theirs = head_trainer(source(), 10, Faults(), seed=3).network
    side = round(16 * (500 if centre else 256) / 224)
    look = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(side), torchvision.transforms.CenterCrop(16)]
        + [torchvision.transforms.ConvertImageDtype(torch.float32)]
        + ([] if raw else [torchvision.transforms.Normalize((0.3,) * 3, (0.4,) * 3)])
    )
    pixels = look(images.pixels)
    optimizer = torch.optim.Adam(theirs.fc.parameters(), lr=0.001)
    theirs.train(drift)
    for epoch in range(EPOCHS):
        right = 0
        order = torch.from_numpy(rk.randomness.permutation(3, epoch, 100))
        for step in range(7):
            chosen = order[step * 15 : (step + 1) * 15]
            out = theirs(pixels[chosen])
            loss = F.cross_entropy(out, images.labels[chosen])
            right += (out.argmax(1) == images.labels[chosen]).sum().item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert ours.learn(images) == (right, 100 * right / (7 * 20))
    start = head_trainer(source(), 10, Faults(), seed=3).network.fc.weight
    way = theirs.fc.weight - start
    # Adam divides by the size of gradients, and so enlarges the rounding of those that are nearly nothing.
    assert torch.linalg.norm(ours.network.fc.weight - theirs.fc.weight) < 0.05 * torch.linalg.norm(way)
    for name, value in theirs.named_buffers():
        torch.testing.assert_close(ours.network.get_buffer(name), value, rtol=1e-2, atol=2e-3)
    theirs.eval()
    expected = 100 * (theirs(pixels).argmax(1) == images.labels).double().mean().item()
    assert ours.test(images) == pytest.approx(expected, abs=1e-6)


def test_without_faults_a_frozen_network_stays_as_it_is_and_with_drift_only_its_statistics_move(images: Images) -> None:
    for drift in (False, True):
        one, before = head_trainer(source(), 10, Faults(drift=drift), seed=0), source().network
        one.learn(images)
        same = {
            name: torch.equal(value, dict(before.named_buffers())[name]) for name, value in buffers(one.network).items()
        }
        assert all(same.values()) != drift
        for name, value in before.named_parameters():
            assert name.startswith("fc") or torch.equal(value, one.network.get_parameter(name))
        assert (batchnorm_shift(one.network, before) > 0) == drift


def test_how_far_statistics_moved_is_in_their_own_deviations() -> None:
    one, other = source().network, source().network
    with torch.no_grad():
        other.bn1.running_mean += 3 * (other.bn1.running_var + other.bn1.eps).sqrt()
    assert batchnorm_shift(other, one) == pytest.approx(3, rel=1e-5)


def test_a_plain_test_learns_nothing_and_the_tutorials_learns(images: Images) -> None:
    one = head_trainer(source(), 10, Faults(), seed=0)
    head = one.network.fc.weight.clone()
    one.test(images)
    assert torch.equal(one.network.fc.weight, head)
    scored = one.test_and_train(images, 0)
    assert not torch.equal(one.network.fc.weight, head)
    assert 0 <= scored <= 100
    conv = one.network.conv1.weight.clone()
    one.unfreeze()
    one.test_and_train(images, 1)
    assert not torch.equal(one.network.conv1.weight, conv)


def test_the_old_head_on_an_untouched_network_is_the_source(images: Images) -> None:
    before = source()
    one = head_trainer(before, 10, Faults(), seed=0)
    one.learn(images)
    seen = before.preprocess.normalise(before.preprocess.batch(images.pixels))
    assert torch.equal(with_old_head(one.network, before).logits(seen), before.logits(seen))


def test_a_bias_in_front_of_batchnorm_gets_no_gradient_and_one_without_batchnorm_does() -> None:
    torch.manual_seed(0)
    fields = {"depths": (1, 1), "widths": (8, 16), "strides": (1, 2), "stem_width": 8}
    assert bias_gradient(rk.create_model("d2l_resnet18", **fields)) < 1e-5
    assert bias_gradient(rk.create_model("d2l_resnet18", **fields, conv_bias=False)) == 0
    network = rk.create_model("d2l_resnet18", **fields)
    network.bn1 = torch.nn.Identity()
    assert bias_gradient(network) > 1e-2


def test_a_network_that_prints_is_cut_for_the_compiler() -> None:
    network = rk.create_model("resnet20", **NETS).eval()
    assert count_graphs(network, torch.zeros(1, 3, 16, 16)) == 1
    assert count_graphs(PrintingNetwork(network), torch.zeros(1, 3, 16, 16)) == 2


@pytest.mark.parametrize(("size", "expected"), [(192, False), (193, True), (224, True), (416, True), (417, False)])
def test_a_fixed_window_takes_a_picture_whose_last_map_it_leaves_one_pixel_of(size: int, expected: bool) -> None:
    """The last map has ceil(size / 32) pixels a side; a window of 7 with stride 7 leaves one where that is 7 to 13."""
    network = rk.create_model("resnet18", widths=(4,) * 4, stem_width=4, num_classes=4).eval()
    assert accepts(network, size, 7) == expected
    assert accepts(network, size, None)


def test_rows_hold_every_fault_and_go_by_the_saved_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_study(monkeypatch, "tutorials")
    outcome = run_study("tutorials", quick=True, out=tmp_path / "study")
    for _, *both in PAIRS:
        for fault, way, measure in both:
            assert any(
                (each["fault"], each["way"], each["measure"]) == (fault, way, measure) for each in outcome.results
            )
    work = tmp_path / "study" / "work"
    for fault, fields in NETWORKS.items():
        saved = rk.load(str(work / f"{fault}-seed0"), precision="fp32")
        assert {name: getattr(saved.network.arch, name) for name in fields} == fields
        (line,) = (
            each
            for each in outcome.results
            if (each["fault"], each["way"], each["measure"]) == (fault, "tutorial", "new task")
        )
        assert line["value"] == rk.evaluate(saved, "digits")["top1"]
    borrowed = rk.load(str(work / "borrowed-seed0"), precision="fp32")
    assert borrowed.classes == ("0", "1", "2", "3", "4", "5")
    old = next(each for each in outcome.results if each["measure"] == "old task")
    assert old["value"] == rk.evaluate(replace(borrowed), str(work / "borrowed"))["top1"]
    assert "a single run" in outcome.answer


def test_pictures_that_cannot_be_written_are_one_line(images: Images, tmp_path: Path) -> None:
    (tmp_path / ".borrowed").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write the pictures in .*borrowed"):
        write_classes({"train": images}, 6, tmp_path / "borrowed")
    assert not (tmp_path / "borrowed").exists()


def test_a_cost_is_named_only_where_the_seeds_agree() -> None:
    """Paired by seed: 1 in 2 for each further seed to fall on the side of the first."""
    said = STUDY.answer(made_up(raw=(80.0, 81.0, 85.0), centre=(89.0, 91.5, 91.0), projection=(95.0, 96.0, 97.0)))
    assert "One fault hides the other" in said
    assert "One fault hides the other" not in STUDY.answer(made_up(raw=(80.0, 91.5, 82.0)))
    assert "(third tutorial): 82.0 % (3 seeds: 80.0 to 85.0); it costs 9.0 points (so with each of 3 seeds; " in said
    assert "without any effect that happens 1 time in 4)" in said
    assert "the means differ by 0.5 points, lower with 2 of 3 seeds: no cost can be told" in said
    assert "it does not cost, but gains 5.0 points" in said
    assert "the means differ by 0.0 points, lower with 0 of 3 seeds: no cost can be told" in said
