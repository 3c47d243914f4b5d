"""What can be known on a CPU of a run on Apple's Metal, which has no float64."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import resnetkit as rk
from resnetkit.evaluation.metrics import widest

AUGMENT = {"flip": True, "pad_crop": 1, "mixup": 0.2, "cutmix": 1.0, "random_erasing": 0.5, "trivial_augment": True}


class Float64(TorchDispatchMode):
    """Collects the files of ours from which an operation with a float64 result is called."""

    def __init__(self) -> None:
        super().__init__()
        self.files: set[str] = set()

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(each, Tensor) and each.dtype == torch.float64 for each in tree_leaves(result)):
            ours = [frame.filename for frame in traceback.extract_stack() if "/resnetkit/" in frame.filename]
            self.files.add(ours[-1].rpartition("/resnetkit/")[2])
        return result


def test_nothing_but_sums_and_what_stays_on_the_host_is_float64(tmp_path: Path) -> None:
    with Float64() as seen:
        rk.train(
            "digits",
            out=tmp_path / "run",
            epochs=1,
            quiet=True,
            class_weights="balanced",
            augment=AUGMENT,
            optim={"ema": 0.9, "clip": 1.0},
            data={"limit": 200},
        )
    # Mean and deviation, the least loss that mixed targets leave, and scores of novelty, are of the host; the sums are
    # `widest`.
    assert seen.files == {
        *("data/splits.py", "evaluation/metrics.py", "training/progress.py"),
        *("novelty/methods.py", "novelty/unknown.py"),
    }
    assert widest(torch.device("mps")) == torch.float32
    assert widest(torch.device("cpu")) == torch.float64
