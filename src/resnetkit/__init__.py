"""Residual networks in PyTorch: train, measure, predict. The names below are imported when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetkit.classifier import Classifier as Classifier
    from resnetkit.data.shards.write import shard as shard
    from resnetkit.doctor.check import check as check
    from resnetkit.doctor.check import manifest as manifest
    from resnetkit.evaluation.compare import compare as compare
    from resnetkit.evaluation.evaluate import evaluate as evaluate
    from resnetkit.images.preprocess import Preprocess as Preprocess
    from resnetkit.networks.arch import Arch as Arch
    from resnetkit.networks.arch import list_models as list_models
    from resnetkit.networks.blocks import BasicBlock as BasicBlock
    from resnetkit.networks.blocks import Bottleneck as Bottleneck
    from resnetkit.networks.resnet import ResNet as ResNet
    from resnetkit.networks.summary import summarise as summarise
    from resnetkit.prediction.predict import iter_predict as iter_predict
    from resnetkit.prediction.predict import predict as predict
    from resnetkit.recipes.load import load_recipe as load_recipe
    from resnetkit.recipes.schema import Recipe as Recipe
    from resnetkit.runs.verification import verify_resume as verify_resume
    from resnetkit.studies.laboratory import run_study as run_study
    from resnetkit.training.hooks import STOP as STOP
    from resnetkit.training.sweep import sweep as sweep
    from resnetkit.training.train import train as train
    from resnetkit.weights.hub import push as push
    from resnetkit.weights.load import create_model as create_model
    from resnetkit.weights.load import from_pretrained as from_pretrained
    from resnetkit.weights.load import load as load

__version__ = "0.1.0"

_HOME = {
    "Arch": "networks.arch",
    "BasicBlock": "networks.blocks",
    "Bottleneck": "networks.blocks",
    "Classifier": "classifier",
    "Preprocess": "images.preprocess",
    "Recipe": "recipes.schema",
    "ResNet": "networks.resnet",
    "STOP": "training.hooks",
    "check": "doctor.check",
    "compare": "evaluation.compare",
    "create_model": "weights.load",
    "evaluate": "evaluation.evaluate",
    "from_pretrained": "weights.load",
    "iter_predict": "prediction.predict",
    "list_models": "networks.arch",
    "load": "weights.load",
    "load_recipe": "recipes.load",
    "manifest": "doctor.check",
    "predict": "prediction.predict",
    "push": "weights.hub",
    "run_study": "studies.laboratory",
    "shard": "data.shards.write",
    "summarise": "networks.summary",
    "sweep": "training.sweep",
    "train": "training.train",
    "verify_resume": "runs.verification",
}

__all__ = [*sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'resnetkit' has no attribute {name!r}")
    return getattr(import_module(f"resnetkit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
