"""Residual networks in PyTorch: train, measure, predict. The names below are imported when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetkit.classifier import Classifier as Classifier
    from resnetkit.doctor import check as check
    from resnetkit.evaluation import evaluate as evaluate
    from resnetkit.hub import push as push
    from resnetkit.model import Arch as Arch
    from resnetkit.model import ResNet as ResNet
    from resnetkit.model import list_models as list_models
    from resnetkit.prediction import predict as predict
    from resnetkit.preprocess import Preprocess as Preprocess
    from resnetkit.recipe import Recipe as Recipe
    from resnetkit.recipe import load_recipe as load_recipe
    from resnetkit.summary import summarise as summarise
    from resnetkit.training import train as train
    from resnetkit.weights import create_model as create_model
    from resnetkit.weights import from_pretrained as from_pretrained
    from resnetkit.weights import load as load

__version__ = "0.1.0"

_HOME = {
    "Arch": "model",
    "Classifier": "classifier",
    "Preprocess": "preprocess",
    "Recipe": "recipe",
    "ResNet": "model",
    "check": "doctor",
    "create_model": "weights",
    "evaluate": "evaluation",
    "from_pretrained": "weights",
    "list_models": "model",
    "load": "weights",
    "load_recipe": "recipe",
    "predict": "prediction",
    "push": "hub",
    "summarise": "summary",
    "train": "training",
}

__all__ = [*sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'resnetkit' has no attribute {name!r}")
    return getattr(import_module(f"resnetkit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
