"""`resnetkit list`."""

from typing import Literal

from resnetkit.cli.options import Json, console, print_json


def list_command(kind: Literal["models", "recipes", "weights", "data"], *, json_output: Json = False) -> None:
    """List models, recipes, weights or data sets.

    Parameters
    ----------
    kind
        What to list.
    """
    from resnetkit.cli.rows import ROWS, brief

    rows = ROWS[kind]()
    if json_output:
        print_json({kind: rows})
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, value in rows[0].items():
        number = isinstance(value, int | float)
        table.add_column(
            heading.replace("_", "-"),
            justify="right" if number else "left",
            no_wrap=heading not in ("weights", "what it is", "from"),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(brief, row.values()))
    console().print(table)
