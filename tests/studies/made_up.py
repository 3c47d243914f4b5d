"""Made-up results of every study, as its measurements would give them: what its answer is tried on."""

from resnetkit.studies import tutorials as tutorials_study
from resnetkit.studies.depth import PAPER
from resnetkit.studies.study import Row


def degradation(ends: dict[tuple[str, int], tuple[float, ...]], *, rate: float = 0.1) -> list[dict]:
    """Results of runs of two epochs that end at these training errors, one for each seed."""
    return [
        {
            "data": "digits",
            "network": network,
            "depth": depth,
            "lr": rate,
            "seed": seed,
            "epoch": epoch,
            "train_error": error + 30 * (2 - epoch),
            "held_out_error": error + 1,
            "test_error": error + 2,
        }
        for (network, depth), errors in ends.items()
        for seed, error in enumerate(errors)
        for epoch in (1, 2)
    ]


DEGRADED = {
    ("plain", 8): (2.0, 2.5, 3.0),
    ("plain", 44): (60.0, 61.0, 65.0),
    ("residual", 8): (2.0, 2.5, 3.0),
    ("residual", 44): (1.0, 2.4, 3.1),
}


def depth(ends: dict[int, tuple[float, ...]], *, data: str = "cifar10", train: dict | None = None) -> list[dict]:
    """Results with these test errors, one for each seed."""
    return [
        {
            "data": data,
            "depth": layers,
            "seed": seed,
            "parameters": 1000 * layers,
            "train_error": (train or {}).get(layers, 1.0) + seed / 10,
            "held_out_error": error,
            "test_error": error,
            "seconds": 1.0,
            "paper_error": PAPER[layers] if data == "cifar10" else "",
        }
        for layers, errors in ends.items()
        for seed, error in enumerate(errors)
    ]


def gradients(states: dict[tuple[str, bool], tuple[float, float]], step: int = 0) -> list[Row]:
    """Results in which the weakest and strongest layers are as given, for two seeds and both initialisations."""
    same = {
        "depth": 20,
        "step": step,
        "applied": step,
        "loss": 2.3,
        "signal": 1.0,
        "snr": 0.5,
        "mismatch": 1e-9,
        "open": 0.5,
    }
    return [
        {"shape": shape, "batchnorm": norm, "init": init, "seed": seed, "layer": layer, "gradient": value}
        | {"relative": value}
        | same
        for (shape, norm), values in states.items()
        for init in ("he", "torch")
        for seed in (0, 1)
        for layer, value in enumerate(values, 1)
    ]


def lesion(residual: tuple[float, ...], plain: tuple[float, ...]) -> list[dict]:
    """Results in which the loss of any block brings these errors, one for each seed."""
    settings = {"data": "digits", "depth": 20}
    lesions = [("none", 0, ""), ("one deleted", 1, "layer1.0"), ("one deleted", 1, "layer1.1")]
    lesions += [("deleted", 2, ""), ("shuffled", 2, "")]
    return [
        settings
        | {"network": network, "seed": seed, "lesion": kind, "count": count, "block": block, "draw": 0}
        | {"error": 1.0 if kind == "none" else error + (block == "layer1.1")}
        for network, errors in (("residual", residual), ("plain", plain))
        for seed, error in enumerate(errors)
        for kind, count, block in lesions
    ]


def responses(values: dict[tuple[str, int], tuple[float, ...]]) -> list[Row]:
    """Results in which every net's two layers have these deviations, one for each seed."""
    return [
        {"shape": shape, "depth": depth, "seed": seed, "top1": 90.0, "layer": layer, "std": value}
        for (shape, depth), seeds in values.items()
        for seed, value in enumerate(seeds)
        for layer in (1, 2)
    ]


def shortcuts(ends: dict[str, tuple[float, ...]], *, rate: float = 0.1, held_out: float = 10.0) -> list[dict]:
    """Results with these test errors, one for each seed."""
    return [
        {
            "data": "digits",
            "depth": 20,
            "shortcut": option,
            "lr": rate,
            "seed": seed,
            "parameters": 1000 + place,
            "train_error": 1.0,
            "held_out_error": held_out,
            "test_error": error,
        }
        for place, (option, errors) in enumerate(ends.items())
        for seed, error in enumerate(errors)
    ]


SIMILAR = {"none": (30.0, 31.0, 32.0), "A": (5.0, 6.0, 7.0), "B": (5.5, 6.5, 7.5), "C": (4.0, 5.5, 6.5)}


def tutorials(**ends: tuple[float, ...]) -> list[dict]:
    """Results in which all is 90 to 92 %, but for the `ends` of a fault on the new task, done the tutorial's way."""
    usual = (90.0, 91.0, 92.0)
    keys = {key for _, *both in tutorials_study.PAIRS for key in both}
    keys |= {("test set", way, what) for way in ("tutorial", "every layer") for what in ("before", "printed")}
    keys |= {("drift", "tutorial", "BatchNorm moved"), ("bias", "tutorial", "gradient of the biases")}
    keys |= {("bias", way, "parameters") for way in ("right", "tutorial")}
    keys |= {("print", way, "graphs") for way in ("right", "tutorial")}
    keys |= {("pool", way, f"{size} px") for way in ("right", "tutorial") for size in tutorials_study.SIZES}
    return [
        {"data": "digits", "part": "", "seed": seed, "fault": fault, "way": way, "measure": measure}
        | {"value": ends.get(fault, usual)[seed] if (way, measure) == ("tutorial", "new task") else usual[seed]}
        for fault, way, measure in sorted(keys)
        for seed in range(3)
    ]


def unknown(caught: dict[str, tuple[float, ...]]) -> list[dict]:
    """Results in which each score catches these shares of all strangers, one for each seed."""
    return [
        {"data": "digits", "left_out": left_out, "seed": seed, "known": "digits", "strangers": strangers}
        | {"method": method, "auroc": 90.0, "caught": share, "refused": 5.0, "top1": 97.0}
        for method, shares in caught.items()
        for left_out, strangers in ((0, 0), (1, 1), ("none", "drawn landscapes"))
        for seed, share in enumerate(shares)
    ]


SCORES = {
    "energy": (50.0, 51.0, 52.0),
    "neighbour": (60.0, 61.0, 62.0),
    "mahalanobis": (70.0, 71.0, 72.0),
    "virtual-logit": (80.0, 81.0, 82.0),
}
