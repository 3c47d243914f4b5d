"""Names of weights as people write them: torchvision's are understood, others answered with the name to type."""

from pathlib import Path

import pytest
import torchvision
from torchvision.models import ResNet18_Weights, ResNet50_Weights, ResNeXt50_32X4D_Weights, Wide_ResNet50_2_Weights

import resnetkit as rk
from resnetkit.errors import UsageError
from resnetkit.runs.choice import choose_recipe
from resnetkit.weights.spelling import spelled
from resnetkit.weights.table import WEIGHTS

THEIRS = [
    each
    for name in torchvision.models.list_models(torchvision.models)
    if name.startswith(("resnet", "wide_resnet", "resnext"))
    for each in torchvision.models.get_model_weights(name)
]


@pytest.mark.parametrize("weights", THEIRS, ids=str)
def test_torchvisions_objects_and_their_texts_are_names_of_ours(weights) -> None:
    assert WEIGHTS[spelled(weights)].url == weights.url
    assert spelled(str(weights)) == spelled(weights)


def test_torchvisions_default_is_its_best() -> None:
    assert spelled(ResNet50_Weights.DEFAULT) == spelled("ResNet50_Weights.DEFAULT") == "resnet50.imagenet1k_v2"
    assert spelled("ResNet18_Weights.DEFAULT") == "resnet18.imagenet1k_v1"


@pytest.mark.parametrize("written", ["resnet18.imagenet1k_v1", "runs/digits", "w.pth", "timm/resnet50.a1_in1k", "none"])
def test_other_names_stay_as_they_are(written: str) -> None:
    assert spelled(written) == written
    assert spelled(Path(written)) == str(Path(written))


def test_they_work_wherever_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli) -> None:
    """Nothing is fetched: what is said names the file that would be."""
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    tries = {
        "resnet18-f37072fd": lambda: rk.create_model("resnet18", weights=ResNet18_Weights.IMAGENET1K_V1),
        "resnext50_32x4d-1a0047aa": lambda: rk.load(ResNeXt50_32X4D_Weights.IMAGENET1K_V2),
        "wide_resnet50_2-95faca4d": lambda: rk.load(str(Wide_ResNet50_2_Weights.IMAGENET1K_V1)),
    }
    for file, call in tries.items():
        with pytest.raises(rk.errors.CheckpointError, match=file):
            call()
    done = cli("predict", "ResNet50_Weights.IMAGENET1K_V2", "x.png")
    assert (done.code, "resnet50-11ad3fa6.pth" in done.err) == (4, True)
    recipe = choose_recipe("photos", None, {"model": {"weights": ResNet50_Weights.IMAGENET1K_V2}}, None)
    assert (recipe.model.name, recipe.model.weights) == ("resnet50", "resnet50.imagenet1k_v2")


MEANT = {
    ("resnet18", "resnet18.v1"): "resnet18.imagenet1k_v1",
    ("resnet50", "resnet50.v2"): "resnet50.imagenet1k_v2",
    ("resnet50", "resnet50.V2"): "resnet50.imagenet1k_v2",
    ("resnet50", "resnet50.a1"): "resnet50.a1_in1k",
    ("resnet50", "resnet50.imagenet"): "resnet50.imagenet1k_v2",
    ("resnet34", "imagenet1k_v1"): "resnet34.imagenet1k_v1",
    ("resnet101", "IMAGENET1K_V2"): "resnet101.imagenet1k_v2",
    ("resnet152", "DEFAULT"): "resnet152.imagenet1k_v2",
    ("resnet18", "pretrained"): "resnet18.imagenet1k_v1",
    ("resnet18", True): "resnet18.imagenet1k_v1",
    ("resnet20", "resnet20.cifar"): "resnet20.cifar10",
}


@pytest.mark.parametrize(("model", "written"), MEANT)
def test_what_is_meant_is_answered_with_the_name_to_type(model: str, written: str | bool) -> None:
    with pytest.raises(UsageError, match=f"Try: {MEANT[model, written]}$"):
        rk.create_model(model, weights=written)


def test_a_tag_alone_on_the_command_line(cli) -> None:
    done = cli("predict", "imagenet1k_v1", "x.png")
    assert (done.code, done.err) == (2, "error: unknown weights 'imagenet1k_v1'. Try: resnet50.imagenet1k_v1\n")
    done = cli("train", "digits", "--weights", "resnet18.v1")
    assert (done.code, done.err.splitlines()[-1]) == (
        2,
        "error: unknown weights 'resnet18.v1'. Try: resnet18.imagenet1k_v1",
    )


@pytest.mark.parametrize("said", [True, False])
def test_pretrained_is_answered_with_weights(said: bool) -> None:
    with pytest.raises(UsageError, match=r'^pretrained= is not .*Try: weights="resnet50.imagenet1k_v2"'):
        rk.create_model("resnet50", pretrained=said)
    with pytest.raises(UsageError, match=r"Try: weights=FILE, or none"):
        rk.create_model("resnet32", pretrained=said)
    with pytest.raises(UsageError, match=r'Try: weights="resnet20.cifar10"'):
        rk.create_model("resnet20", pretrained=said)


def test_one_of_torchvisions_that_we_do_not_have_gets_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown weights 'ResNet18_Weights.IMAGENET1K_V2'. Try: resnet18.imagenet1k_v1"
    ):
        rk.load("ResNet18_Weights.IMAGENET1K_V2")
