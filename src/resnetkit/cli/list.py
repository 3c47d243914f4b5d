"""`resnetkit list`: networks, recipes, published weights, data sets."""

from collections.abc import Callable
from typing import Any, Literal

from resnetkit.cli.options import Json
from resnetkit.cli.printing import answer_json, answer_table

Rows = list[dict[str, Any]]


def list_command(kind: Literal["models", "recipes", "weights", "data"], *, json_output: Json = False) -> None:
    """List models, recipes, weights or data sets.

    resnetkit list models     networks: size, work, source, and their weights
    resnetkit list weights    published weights, and which of them are here

    Parameters
    ----------
    kind
        What to list.
    """
    rows = ROWS[kind]()
    if json_output:
        answer_json({kind: rows})
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, int(kind not in DENSE), 0, 0))
    for heading, value in rows[0].items():
        number = isinstance(value, int | float)
        table.add_column(
            HEADINGS.get(heading, heading),
            justify="right" if number else "left",
            no_wrap=heading not in FOLDED and (kind, heading) not in WIDTHS,
            overflow="fold",
            max_width=WIDTHS.get((kind, heading)),
        )
    for row in rows:
        table.add_row(*map(_brief, row.values()))
    answer_table(table)


def _model_rows() -> Rows:
    """Every network: size, work, source, and the names of its published weights."""
    from resnetkit.networks.arch import VARIANTS
    from resnetkit.networks.summary import summarise
    from resnetkit.weights.table import weights_of

    rows = []
    for name, arch in VARIANTS.items():
        summary = summarise(arch, arch.native_size)
        rows.append(
            {
                "name": name,
                "parameters": summary.parameters,
                "multiply_adds": summary.multiply_adds,
                "pixels": arch.native_size,
                "source": arch.source,
                "weights": weights_of(name),
            }
        )
    return rows


def _weights_rows() -> Rows:
    """Every line of the table of published weights, and whether the file is on this machine; then our own."""
    from resnetkit.weights.table import OWN, WEIGHTS, own_config

    rows = [
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
    for name in OWN:
        about = own_config(name)
        rows.append(
            {
                "name": name,
                "top1": about["metrics"]["top1"],
                "pixels": about["preprocess"]["size"],
                "source": "resnetkit",
                "licence": "Apache-2.0",
                "cached": "yes",
            }
        )
    return rows


def _recipe_rows() -> Rows:
    """The recipes of the package, each with its first line."""
    from resnetkit.recipes.load import list_recipes

    return [{"name": name, "what it is": what} for name, what in list_recipes().items()]


def _data_rows() -> Rows:
    """The named sets, their recipes, and where they are."""
    from resnetkit.data.named import NAMED_SETS, default_data_root
    from resnetkit.runs.choice import default_recipe

    rows = [{"name": name, "recipe": default_recipe(name), "from": str(default_data_root())} for name in NAMED_SETS]
    rows[0]["from"] = "embedded"
    return [*rows, {"name": "FOLDER/", "recipe": default_recipe("FOLDER/"), "from": "one folder for each class"}]


ROWS: dict[str, Callable[[], Rows]] = {
    "models": _model_rows,
    "recipes": _recipe_rows,
    "weights": _weights_rows,
    "data": _data_rows,
}


HEADINGS = {"parameters": "params", "multiply_adds": "MACs", "pixels": "px"}
"""Of columns that are narrower than their names."""
FOLDED = ("what it is", "from")
"""Columns whose words may go on in the next line."""
DENSE = ("models",)
"""Tables with one space between columns, to fit 80 characters."""
WIDTHS = {("models", "source"): 9, ("models", "weights"): 30}
"""Of columns that would not leave the others their place among 80 characters."""


def _brief(value: object) -> str:
    """A value for a table: large numbers in millions or billions, names with spaces between."""
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, float):
        return f"{value:.2f}"
    if not isinstance(value, int) or abs(value) < 10_000:
        return str(value)
    return f"{value / 1e9:.2f} G" if value >= 10**9 else f"{value / 1e6:.2f} M"
