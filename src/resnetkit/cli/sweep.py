"""`resnetkit sweep`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from resnetkit.cli.keys import GridFlags, alternatives
from resnetkit.cli.options import RECIPE_KEYS, DataRoot, Json, importing
from resnetkit.cli.printing import answer, answer_json, answer_table

if TYPE_CHECKING:
    from resnetkit.training.sweep import Sweep


def sweep_command(
    data: str | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    out: Path | None = None,
    data_root: DataRoot = None,
    json_output: Json = False,
    grid: Annotated[GridFlags | None, Parameter(name="*", group=RECIPE_KEYS)] = None,
) -> None:
    """Train every combination of some settings, and say which is the best.

    resnetkit sweep digits --optim.lr 0.03,0.1,0.3 --seed 0,1
    resnetkit sweep photos/ --recipe head,finetune --model resnet18,resnet50
    resnetkit sweep digits --model.depths '1,1,1;2,2,2' --epochs 20

    Commas part the values of a key; where a value has commas itself, as a list has, semicolons do. Keys with one value
    are the same for all rows.

    Rows are ranked by the validation split; those that differ in the seed alone are averaged. The test split stays
    closed until the end, and is opened once, for the winner. The same command goes on where it was stopped; with other
    values it adds rows.

    Parameters
    ----------
    data
        As for `train`. [default: digits]
    recipe
        One or several; without it the one that fits the data.
    model
        One or several networks.
    weights
        One or several to start from.
    out
        Folder of the sweep. Without it: sweeps/DATA.
    """
    values: dict[str, Any] = grid.alternatives() if grid is not None else {}
    for key, text in (("recipe", recipe), ("model", model), ("weights", weights)):
        if text is not None:
            values[key] = alternatives(key, text)
    with importing():
        from resnetkit.training.sweep import summary, sweep

    found = sweep(data or "digits", values, out=out, data_root=data_root)
    if json_output:
        answer_json(found.to_dict())
        return
    _tell(found)
    answer("", *summary(found))


def _tell(found: "Sweep") -> None:
    """The table: the best first, then those that failed."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from resnetkit.training.grid import worded

    several = any(len(standing.rows) > 1 for standing in found.ranking)
    keys = [key for key in found.varied if not (several and key == "seed")]
    short = [key.rpartition(".")[2] for key in keys]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    for key, last in zip(keys, short, strict=True):
        table.add_column(last if short.count(last) == 1 else key, overflow="fold")
    figures = ("top-1 %", "95 % interval", "loss", *(("seeds",) if several else ()))
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    for standing in found.ranking:
        tops = [row.top1 for row in standing.rows]
        spread = f"{min(tops):.1f} to {max(tops):.1f}" if len(tops) > 1 else ""
        interval = f"{standing.low:.1f} to {standing.high:.1f}"
        own = [worded(standing.settings.get(key)) for key in keys]
        said = (f"{standing.top1:.2f}", interval, f"{standing.loss:.3f}", *((spread,) if several else ()))
        table.add_row("=" if standing.tied else "", *own, *said)
    answer(f"{found.data}: {found.rows} rows, ranked by {found.count:,} validation images", "")
    answer_table(table)
    if found.failed:
        answer("", *(f"failed: {row}: {why}" for row, why in found.failed.items()))
