"""Every public name, called in ways that cannot be: one line that names the argument, never an error from inside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resnetkit as rk
from resnetkit.arguments import checked
from resnetkit.errors import ResnetkitError, UsageError

WITH_CLASSIFIER = ("evaluate", "predict", "push")
NEED_NONE = ("STOP", "Recipe", "list_models", "train", "verify_resume")
WRONG: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "a list": [3.5],
    "an unknown name": "nothing-of-that-name",
    "an object": object(),
    "an array": np.zeros(3),
    "a file": Path("notes.txt"),
}
WORKS = {
    ("list_models", "an unknown name"),
    ("predict", "an unknown name"),  # a row that says that there is no such file
    ("predict", "a file"),
    ("train", "None"),
    ("push", "an unknown name"),
}


@pytest.fixture
def call(digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call a public name, with a classifier first where it wants one, in a folder with one file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("notes.txt").write_text("no picture, no recipe, no weights")
    classifier = rk.load(digits_run, device="cpu", precision="fp32")

    def with_classifier(name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(rk, name)(*([classifier] if name in WITH_CLASSIFIER else []), *args, **kwargs)

    return with_classifier


@pytest.mark.parametrize("name", [name for name in rk.__all__ if name != "STOP"])
def test_a_wrong_kind_of_argument_is_one_line(name: str, call) -> None:
    for kind, value in WRONG.items():
        if (name, kind) in WORKS or (name == "from_pretrained" and kind == "an unknown name"):
            continue
        with pytest.raises(ResnetkitError) as caught:
            call(name, value)
        assert "\n" not in str(caught.value), kind
        assert len(str(caught.value)) < 400, kind


@pytest.mark.parametrize("name", [name for name in rk.__all__ if name != "STOP"])
def test_a_misspelt_keyword_is_one_line(name: str, call) -> None:
    arguments = () if name == "Recipe" else ("digits",)
    arguments = ("user/digits",) if name == "push" else ("resnet18",) if name == "create_model" else arguments
    with pytest.raises(UsageError) as caught:
        call(name, *arguments, misspelt=1)
    assert "\n" not in str(caught.value)
    if name not in ("Arch", "Preprocess"):
        assert "misspelt" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in rk.__all__ if name not in NEED_NONE])
def test_a_missing_argument_is_one_line(name: str, call) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(rk, name)()
    assert "\n" not in str(caught.value)


KEYWORDS = [
    ({"lr": 0.1}, r"train\(\) has no argument 'lr'\. Try: optim=\{\"lr\": 0\.1\}"),
    ({"learning_rate": 0.1}, r"Try: optim=\{\"lr\": 0\.1\}"),
    ({"optim.lr": 0.1}, r"Try: optim=\{\"lr\": 0\.1\}"),
    ({"batch_size": 8}, r"Try: data=\{\"batch_size\": 8\}"),
    ({"weights": "none"}, r"Try: model=\{\"weights\": 'none'\}"),
    ({"epoch": 3}, "Try: epochs=3"),
    ({"optm": {}}, "Try: optim=…"),
    ({"optim": 0.1}, r"train\(optim=0\.1\) cannot be: it takes a dict of keys\. Try: optim=\{"),
    ({"optim": {"lrr": 0.1}}, r"unknown key 'optim\.lrr'\. Try: optim\.lr"),
    ({"data": {"lr": 0.1}}, r"unknown key 'data\.lr'\. Try: optim\.lr"),
    ({"optim": {"lr": "fast"}}, r"optim\.lr = 'fast' cannot be"),
    ({"model": 18}, r"train\(model=18\) cannot be: it takes a name, an Arch or a dict of keys"),
    ({"model": "resnet19"}, "unknown model 'resnet19'. Try: resnet"),
    ({"recipe": {"epochs": 3}}, r"train\(recipe=\{'epochs': 3\}\) cannot be: it takes text, a path, a Recipe or None"),
    ({"out": 5}, r"train\(out=5\) cannot be: it takes text, a path or None"),
    ({"resume": "yes"}, r"train\(resume='yes'\) cannot be: it takes True or False"),
    ({"allow_change": "epochs"}, r"train\(allow_change='epochs'\) cannot be: it takes a list of names"),
    ({"data_root": 5}, r"train\(data_root=5\) cannot be"),
    ({"epochs": True, "device": "cuda:99"}, "device 'cuda:99' is not on this machine"),
]


@pytest.mark.parametrize(("given", "says"), KEYWORDS, ids=[str(given)[:40] for given, _ in KEYWORDS])
def test_train_says_where_a_key_belongs(given: dict[str, Any], says: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says):
        rk.train("digits", **given)
    assert not any(tmp_path.iterdir())


def test_a_classifier_says_what_it_takes(digits_run: Path) -> None:
    one = rk.load(digits_run, device="cpu")
    assert one.to("cpu") is one
    assert str(one.device) == "cpu"
    assert next(one.network.parameters()).device == one.device
    for wrong, says in ((5, "takes text or a device"), ("tpu9", "is not on this machine"), (None, "takes text")):
        with pytest.raises(UsageError, match=says):
            one.to(wrong)
    with pytest.raises(UsageError, match=r"predict\(classifier=.*\) cannot be: .* Try: resnetkit\.load\(FOLDER\)"):
        rk.predict(str(digits_run), "a.png")
    with pytest.raises(UsageError, match=r"unknown argument of predict\(\) 'topk'\. Try: top"):
        one.predict("a.png", topk=3)


@checked(folder="a folder")
def _some(place: str, /, size: int = 3, *, folder: Path | None = None, rate: float = 0.1, names: list[str] = []) -> int:  # noqa: B006
    return size


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, r"_some\(\) lacks place"),
        (("a", 1, 2), {}, r"takes 2 arguments without their names: there are 3\. Try: folder=…, rate=…, names=…"),
        (("a", 1), {"size": 2}, "is given size twice"),
        (("a",), {"size": True}, "it takes a whole number"),
        (("a",), {"size": 1.5}, "it takes a whole number"),
        (("a",), {"folder": "b"}, r"folder='b'\) cannot be: it takes a path or None\. Try: a folder"),
        (("a",), {"names": "abc"}, "it takes a list of names"),
        (("a",), {"names": [1]}, "it takes a list of names"),
        (("a",), {"rate": "x" * 500}, "it takes a number"),
    ],
)
def test_a_checked_function_says_what_it_takes(args: tuple, kwargs: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        _some(*args, **kwargs)
    assert len(str(caught.value)) < 200


def test_a_checked_function_takes_what_numpy_counts_with() -> None:
    assert _some("a", np.int64(4), rate=np.float32(0.5), folder=Path("b"), names=["c"]) == 4
    assert _some("a", rate=1) == 3
