"""Recipes: load, check, resolve, compare."""

from alignkit.recipe.diff import (
    ABSENT,
    Difference,
    as_recipe,
    diff_against_parent,
    diff_resolved,
    differences,
    to_yaml,
)
from alignkit.recipe.load import load
from alignkit.recipe.model import Recipe
from alignkit.recipe.plugin_check import named_plugins
from alignkit.recipe.schema import METHODS, Config
from alignkit.recipe.schema.editor import json_schema
from alignkit.recipe.yaml import Origin

__all__ = [
    "ABSENT",
    "METHODS",
    "Config",
    "Difference",
    "Origin",
    "Recipe",
    "as_recipe",
    "diff_against_parent",
    "diff_resolved",
    "differences",
    "json_schema",
    "load",
    "named_plugins",
    "to_yaml",
]
