"""The page of a study: question, figure, answer, and how to repeat it, in one HTML file that needs nothing else."""

import base64
import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from resnetkit.machine.storage import replace_file
from resnetkit.studies.study import Row, Study

STYLE = """
body { font: 17px/1.6 Georgia, serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { width: 100%; } code, pre { font: 14px/1.5 ui-monospace, monospace; background: #f4f4f2; }
pre { padding: .7rem 1rem; overflow-x: auto; } .source { color: #666; }
table { border-collapse: collapse; font-size: 14px; } td, th { padding: .15rem .6rem; text-align: right; }
th { border-bottom: 1px solid #999; font-weight: normal; color: #666; } details { margin-top: 1rem; overflow-x: auto; }
"""
SHOWN = 400
"""Lines of results that the page shows; all of them are in results.csv."""


def write_page(folder: Path, study: Study, results: Sequence[Row], answer: str, *, quick: bool) -> Path:
    """Write `figure.png` and `index.html`, and give the page's path. Raises `StorageError` (exit code 7)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    study.draw(figure, results)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    replace_file(folder / "figure.png", picture.getvalue())
    command = f"resnetkit study {study.name}{' --quick' if quick else ''}"
    machine = json.loads((folder / "study.json").read_bytes())["machine"]
    paragraphs = "".join(f"<p>{_with_code(escape(part))}</p>" for part in answer.split("\n\n"))
    head = "".join(f"<th>{escape(column)}</th>" for column in study.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(line[column]))}</td>" for column in study.columns) + "</tr>"
        for line in results[:SHOWN]
    )
    html = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(study.title)}</title><style>{STYLE}</style>
<h1>{escape(study.title)}</h1>
<p>{escape(study.question)}</p>
<p class="source">The claim: {escape(study.source)}</p>
<img alt="{escape(study.title)}" src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}">
<h2>The answer{" of a quick look" if quick else ""}</h2>
{paragraphs}
<h2>Do it again</h2>
<pre>{escape(command)}</pre>
<p class="source">Measured on {escape(", ".join(f"{name} {value}" for name, value in machine.items()))}.
{len(results)} lines of results in results.csv.</p>
<details><summary>The figures</summary><table><tr>{head}</tr>{body}</table></details>
</html>
"""
    replace_file(folder / "index.html", html.encode())
    return folder / "index.html"


def _with_code(text: str) -> str:
    """Commands and names, which stand between backticks, as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
