"""What `--help` looks like: flags on the left, sentences on the right, and of a recipe's keys only the main ones.

`--help-all` shows every flag and every key, with the values that the recipe for the data in question has.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resnetkit.cli.options import LABELS, NETWORK_KEYS, RECIPE_KEYS, SELDOM

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

ALL = "--help-all"
MAIN = frozenset(
    (
        "--epochs",
        "--seed",
        "--device",
        "--precision",
        "--data.batch-size",
        "--data.image-size",
        "--optim.lr",
        "--optim.weight-decay",
    )
)
"""Recipe keys that `--help` shows."""
KEYS = {RECIPE_KEYS.name: "They override the recipe.", NETWORK_KEYS.name: "They change the network."}
"""Groups that are longer than a screen, and what their flags do."""
WIDEST = 28
"""Characters that the flags may take; a longer one has a line of its own."""


class Page:
    """Prints the parts of a help page; cyclopts calls it for each group of flags, or of commands."""

    def __init__(self, *, whole: bool = False, values: Mapping[str, str] | None = None) -> None:
        self.whole, self.values = whole, values or {}

    def render_usage(self, console: "Console", _options: "ConsoleOptions", usage: Any) -> None:
        """The first line."""
        if usage:
            console.out(f"Usage: {str(usage).removeprefix('Usage:').strip()}\n", highlight=False)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """What the command does: its docstring, in which a paragraph of several lines stands as it is."""
        text = str(getattr(description, "primary_renderable", description))
        paragraphs = [
            paragraph
            if paragraph.startswith("resnetkit ")
            else textwrap.fill(" ".join(paragraph.split()), options.max_width)
            for paragraph in text.strip().split("\n\n")
        ]
        console.out("\n\n".join(paragraphs), highlight=False)

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """One group."""
        entries = [entry for entry in panel.entries if self.whole or _is_main(entry, str(panel.title))]
        heading = [f"{panel.title}:"]
        is_key = panel.title in KEYS
        if is_key:
            heading += _wrapped(self._about_keys(str(panel.title)), options.max_width)
        if len(heading) > 1 or entries:
            rows = [self._row(entry, is_key=is_key) for entry in entries]
            lines = ["", *heading, *_columns(rows, options.max_width)]
            console.out("\n".join(lines), highlight=False)

    def _about_keys(self, title: str) -> str:
        if not self.whole:
            return f"{KEYS[title]} All of them, with their values: {ALL}"
        values = " In brackets, what the recipe for these data says." if self.values else ""
        return f"{KEYS[title]}{values} With no- in its name a switch is off."

    def _row(self, entry: "HelpEntry", *, is_key: bool) -> tuple[str, str]:
        names = " ".join(entry.copy(negative_names=(), negative_shorts=()).display_labels_with_metavar)
        flag = entry.positive_names[0] if entry.positive_names else ""
        marks = [", ".join(entry.choices)] if entry.choices else []
        if is_key and self.values:
            marks += filter(None, [self.values.get(flag.removeprefix("--").replace("-", "_"))])
        elif not is_key and entry.default not in (None, "False", "None"):
            marks.append(f"default: {entry.default}")
        marks += ["required"] if entry.required else []
        text = str(getattr(entry.description, "primary_renderable", entry.description or ""))
        return names, " ".join([text, *(f"[{mark}]" for mark in marks)]).strip()


def _is_main(entry: "HelpEntry", title: str) -> bool:
    if title in KEYS:
        return bool(MAIN.intersection(entry.positive_names))
    return title not in (SELDOM.name, LABELS.name)


def _columns(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Flags and their sentences, side by side."""
    left = min(max((len(names) for names, _ in rows), default=0), WIDEST)
    for names, text in rows:
        lines = textwrap.wrap(text, width - left - 4, break_on_hyphens=False) or [""]
        if len(names) > left:
            yield f"  {names}"
            names = ""
        for line in lines:
            yield f"  {names:{left}}  {line}".rstrip()
            names = ""


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width - 2, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def print_all(app: "App", words: Sequence[str]) -> None:
    """The whole page of the command in `words`. Raises `UsageError` (exit code 2) for a recipe that cannot be."""
    words = [word for word in words if word not in (ALL, "--help", "-h")]
    before, app.help_formatter = app.help_formatter, Page(whole=True, values=_values(app, words))
    try:
        app.help_print(words)
    finally:
        app.help_formatter = before


def _values(app: "App", words: Sequence[str]) -> dict[str, str]:
    """Each key of the recipe that `train` with these words would follow, by dotted name."""
    if words[:1] != ["train"]:
        return {}
    from resnetkit.cli.train import recipe_of
    from resnetkit.networks.arch import get_arch
    from resnetkit.runs.choice import leaves_choice

    _, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    recipe = recipe_of(
        **{key: given.arguments.get(key) for key in ("data", "recipe", "model", "weights", "which", "changes")}
    )
    settings = recipe.model_dump()
    own = {key: value for key, value in settings["model"].items() if value is not None}
    if not leaves_choice(recipe.model.name):
        arch = get_arch(recipe.model.name, **{key: own[key] for key in own.keys() - {"name", "weights"}})
        own = vars(arch) | own
    settings["model"] = own
    rows = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    for section in settings.keys() - rows.keys():
        rows |= {f"{section}.{name}": value for name, value in settings[section].items()}
    return {name: _shown(value) for name, value in rows.items() if value not in (None, ())}


def _shown(value: object) -> str:
    """A value as one would type it; a switch is on or off."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(_shown, value)) if isinstance(value, tuple) else str(value)
