"""Which score of novelty catches most strangers: the networks that ship, shown each other's pictures.

`python benchmarks/unknown.py DIR`: DIR holds Fashion-MNIST in torchvision's layout and CIFAR-10 as one of its layouts.
Prints, for each score, the area under the ROC curve, the share of strangers caught where 5 % of validation is refused,
and the share refused of the known test images, in percent.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.data.splits import Images
from resnetkit.evaluation.answers import answer
from resnetkit.images.memory import picture
from resnetkit.novelty.methods import METHODS
from resnetkit.novelty.unknown import learn_unknown
from resnetkit.recipes.schema import DataRecipe
from resnetkit.studies.fit import in_memory
from resnetkit.weights.load import load

NETWORKS = {"digits": "resnet8.digits", "fashion-mnist": "resnet8.fashion-mnist", "cifar10": "resnet20.cifar10"}
MOST = 2000
Seen = tuple[Tensor, Tensor, Tensor]
"""Features, logits and labels."""


def seen(classifier: Classifier, images: Images) -> Seen:
    found = answer(classifier, images.limited(MOST) if len(images) > MOST else images, workers=0, features=True)
    assert found.features is not None
    return torch.from_numpy(found.features), torch.from_numpy(found.logits), torch.from_numpy(found.labels)


def as_the_network_sees(classifier: Classifier, images: Images) -> Images:
    """Pictures of another set, by the rule for files."""
    look, few = classifier.preprocess, images.limited(MOST) if len(images) > MOST else images
    pixels = [look.pixels(picture(each.permute(1, 2, 0).squeeze(2).numpy(), look.channels)) for each in few.pixels]
    return Images(torch.stack(pixels), torch.zeros(len(pixels), dtype=torch.int64))


def without(said: Seen, label: int) -> Seen:
    """As if the head had never had a class: its images and its logit are gone."""
    features, logits, labels = said
    kept, others = labels != label, [each for each in range(logits.shape[1]) if each != label]
    return features[kept], logits[kept][:, others], labels[kept] - (labels[kept] > label).long()


def figures(method: str, parts: list[Seen], strange: Seen) -> np.ndarray:
    (features, logits, labels), held_out, test = parts
    unknown = learn_unknown(features, labels, logits, held_out[:2], method=method)
    assert unknown is not None
    usual, other = unknown.score(*test[:2]).numpy(), unknown.score(*strange[:2]).numpy()
    truth = np.repeat([0, 1], [len(usual), len(other)])
    auroc = roc_auc_score(truth, np.concatenate([usual, other]))
    return 100 * np.array([auroc, (other > unknown.threshold).mean(), (usual > unknown.threshold).mean()])


def left_out(method: str, parts: list[Seen]) -> np.ndarray:
    test, rows = parts[-1], []
    for label in range(10):
        few = test[2] == label
        columns = [each for each in range(10) if each != label]
        strange = test[0][few], test[1][few][:, columns], test[2][few]
        rows.append(figures(method, [without(each, label) for each in parts], strange))
    return np.mean(rows, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where Fashion-MNIST lies")
    parser.add_argument("--cifar10", default="cifar10", help="CIFAR-10 as a folder of pictures, where it is one")
    asked = parser.parse_args()
    classifiers = {name: load(source, device="cpu", precision="fp32") for name, source in NETWORKS.items()}
    data = {}
    for name, classifier in classifiers.items():
        source = asked.cifar10 if name == "cifar10" else name
        settings = DataRecipe(name=source, validation=classifier.origin.validation or 0.0)
        data[name] = load_data(source, settings, data_root=asked.folder)
    print("network, strangers, score: AUROC, caught, refused of the known test images")
    for name, classifier in classifiers.items():
        parts = [
            seen(classifier, in_memory(data[name], getattr(data[name], each)))
            for each in ("train", "validation", "test")
        ]
        for other in data.keys() - {name}:
            strange = seen(classifier, as_the_network_sees(classifier, in_memory(data[other], data[other].test)))
            for method in METHODS:
                print(f"{name}, {other}, {method}: {np.round(figures(method, parts, strange), 1)}", flush=True)
        for method in METHODS:
            print(f"{name}, one class out, {method}: {np.round(left_out(method, parts), 1)}", flush=True)


if __name__ == "__main__":
    main()
