"""`torch.hub.load("USER/resnetkit", "resnet50", weights="resnet50.imagenet1k_v2")`: every network as an entry point."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

dependencies = ["torch", "torchvision", "pydantic", "safetensors", "filelock"]

sys.path.insert(0, str(Path(__file__).parent / "src"))

from resnetkit.networks.arch import VARIANTS  # noqa: E402 - the package is found only now
from resnetkit.weights.load import create_model  # noqa: E402
from resnetkit.weights.table import best_weights  # noqa: E402


def _entry(name: str) -> Callable[..., Any]:
    def build(pretrained: bool = False, **changes: Any) -> Any:
        weights = changes.pop("weights", None) or (best_weights(name) if pretrained else None)
        return create_model(name, weights=weights, **changes)

    build.__name__ = name
    build.__doc__ = f"{name}. `weights`: a name or a file. `pretrained`: the best published ones. Else: fields of Arch."
    return build


for _name in VARIANTS:
    globals()[_name] = _entry(_name)
