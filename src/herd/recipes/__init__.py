"""The recipes that come with herd, by name. Each is a function that returns a complete `Recipe`.

pico              the whole road in under two minutes, to see that it works (the tests run it)
nano              a herd on a laptop CPU in minutes
micro             125M and 30M parameters on real text, one GPU for an evening
llama31_8b, llama31_70b, llama31_405b    the published settings; planned, not run, on one machine
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from herd.config import load, unknown
from herd.errors import ArtifactError, SettingError
from herd.recipe import Recipe

# name -> module:function; imported when asked for
RECIPES = {
    "pico": "herd.recipes.pico:pico",
    "nano": "herd.recipes.nano:nano",
    "micro": "herd.recipes.micro:micro",
    "llama31_8b": "herd.recipes.llama31:llama31_8b",
    "llama31_70b": "herd.recipes.llama31:llama31_70b",
    "llama31_405b": "herd.recipes.llama31:llama31_405b",
}


def find(name: str) -> Recipe:
    """A recipe by its name, or from a saved recipe.json. Unknown names are refused with the nearest one."""
    if name in RECIPES:
        module, function = RECIPES[name].split(":")
        make: Callable[[], Recipe] = getattr(import_module(module), function)
        return make()
    path = Path(name)
    if path.suffix == ".json" or "/" in name:
        try:
            return load(path, Recipe)
        except ArtifactError as error:
            raise SettingError(
                "there is no such recipe file", where=name, mend="names: " + ", ".join(RECIPES)
            ) from error
    raise unknown(name, RECIPES, "a recipe")
