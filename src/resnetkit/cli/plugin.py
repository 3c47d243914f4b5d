"""`--plugin`: a Python file of the user's own, or a module, with what a run is to take of it."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from resnetkit.errors import UsageError, blaming

NAMES = ("network", "loss", "transform", "optimizer", "callbacks")


def network_of(plugin: str | None) -> Any:
    """The network of a plugin, or what makes it, for a model that was trained with it. Raises as `load_plugin`."""
    if plugin is None:
        return None
    found = load_plugin(plugin)
    if "network" not in found:
        raise UsageError("the plugin has no network", file=plugin, why="a model takes no more", remedy="without it")
    return found["network"]


def load_plugin(name: str) -> dict[str, Any]:
    """What a plugin has of `NAMES`, as arguments of `train`.

    `name`: a path that ends with .py, or a module that Python finds from the folder where the command runs. Its folder
    goes before all others where modules are looked for, so that processes that decode find it too.
    Raises `HookError` (exit code 2) where it cannot be imported, naming file and line; `UsageError` (2) where it has
    none of the names.
    """
    path = Path(name)
    is_file = name.endswith(".py")
    if is_file and not path.is_file():
        raise UsageError("there is no plugin", file=name, remedy="a path to a Python file, or a module's name")
    sys.path.insert(0, str(path.parent.resolve() if is_file else Path.cwd()))
    with blaming(f"the plugin {name}"):
        module = import_module(path.stem if is_file else name)
    if is_file and (module.__file__ is None or not path.samefile(module.__file__)):
        raise UsageError(f"another module is called {path.stem}", file=module.__file__, remedy=f"rename {path.name}")
    found = {each: getattr(module, each) for each in NAMES if hasattr(module, each)}
    if not found:
        why = f"a plugin has some of {', '.join(NAMES)}"
        raise UsageError("the plugin has nothing for a run", file=module.__file__, why=why)
    return found
