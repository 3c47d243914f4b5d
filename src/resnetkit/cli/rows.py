"""What `resnetkit list` shows: networks, recipes, published weights, data sets."""

from collections.abc import Callable
from typing import Any

from resnetkit.data.named import NAMED_SETS, default_data_root
from resnetkit.networks.arch import VARIANTS, Arch
from resnetkit.networks.summary import summarise
from resnetkit.recipes.load import list_recipes
from resnetkit.runs.choice import default_recipe
from resnetkit.weights.table import OWN, WEIGHTS, own_config, weights_of


def model_rows() -> list[dict[str, Any]]:
    """Every network: size, work, source, and the names of its published weights."""
    rows = []
    for name, arch in VARIANTS.items():
        summary = summarise(arch, native_size(arch))
        rows.append(
            {
                "name": name,
                "parameters": summary.parameters,
                "multiply_adds": summary.multiply_adds,
                "pixels": native_size(arch),
                "source": arch.source,
                "weights": weights_of(name),
            }
        )
    return rows


def weights_rows() -> list[dict[str, Any]]:
    """Every line of the table of published weights, and whether the file is on this machine; then our own."""
    published = [
        {
            "name": name,
            "top1": weights.top1,
            "pixels": weights.size,
            "source": weights.source,
            "licence": weights.licence,
            "cached": "yes" if weights.cached().is_file() else "no",
        }
        for name, weights in WEIGHTS.items()
    ]
    return [*published, *map(_own_row, OWN)]


def _own_row(name: str) -> dict[str, Any]:
    about = own_config(name)
    return {
        "name": name,
        "top1": about["metrics"]["top1"],
        "pixels": about["preprocess"]["size"],
        "source": "resnetkit",
        "licence": "Apache-2.0",
        "cached": "yes",
    }


def recipe_rows() -> list[dict[str, Any]]:
    """The recipes of the package, each with its first line."""
    return [{"name": name, "what it is": what} for name, what in list_recipes().items()]


def data_rows() -> list[dict[str, Any]]:
    """The named sets, their recipes, and where they are."""
    rows = [{"name": name, "recipe": default_recipe(name), "from": str(default_data_root())} for name in NAMED_SETS]
    rows[0]["from"] = "embedded"
    return [*rows, {"name": "FOLDER/", "recipe": default_recipe("FOLDER/"), "from": "one folder for each class"}]


def native_size(arch: Arch) -> int:
    """The side in pixels that a network was drawn for."""
    return 224 if arch.stem == "imagenet" else 32


def brief(value: object) -> str:
    """A value for a table: large numbers in millions or billions; of names of weights what tells them apart."""
    if isinstance(value, list):
        return " ".join(name.partition(".")[2].removeprefix("imagenet1k_").removesuffix("_in1k") for name in value)
    if isinstance(value, float):
        return f"{value:.2f}"
    if not isinstance(value, int) or abs(value) < 10_000:
        return str(value)
    return f"{value / 1e9:.2f} G" if value >= 10**9 else f"{value / 1e6:.2f} M"


ROWS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "models": model_rows,
    "recipes": recipe_rows,
    "weights": weights_rows,
    "data": data_rows,
}
