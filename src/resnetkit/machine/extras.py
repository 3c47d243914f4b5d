"""How what is optional is installed, in the way in which this copy was."""

import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from shlex import quote
from urllib.parse import urlparse
from urllib.request import url2pathname


def with_extra(name: str, installed: Distribution | None = None) -> str:
    """The command that adds one of our extras, such as "report", to what was `installed`, or to this copy."""
    try:
        ours = installed or distribution("resnetkit")
    except PackageNotFoundError:  # run from its source, and installed nowhere
        return f'pip install "resnetkit[{name}]"'
    tool = (ours.read_text("INSTALLER") or "pip").strip()
    origin = json.loads(ours.read_text("direct_url.json") or "{}")
    if tool == "uv" and origin.get("dir_info", {}).get("editable"):
        return f"uv sync --extra {name}"
    where = url2pathname(urlparse(origin["url"]).path) if "dir_info" in origin else "resnetkit"
    return f"{'uv ' if tool == 'uv' else ''}pip install {quote(f'{where}[{name}]')}"
