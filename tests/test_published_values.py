"""Every value of docs/published.md against the recipe or variant that it speaks of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alignkit import kits, plan, plugins, recipe
from alignkit.sweep import spec

ROOT = kits.builtin().root / "recipes"
GUIDE = Path(__file__).parents[1] / "docs" / "published.md"
ROW = re.compile(
    r"^\| `([\w:]+)` \| `([^`]+)` \| `([^`]*)` \| ([^|]*)\|$", re.MULTILINE
)
TABLE = ROW.findall(GUIDE.read_text(encoding="utf-8"))
COUNTED = {"rows per optimizer step", "completions per generation"}


def test_the_page_has_no_row_that_is_not_read_and_none_twice():
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    assert len(TABLE) == sum(line.startswith("| `") for line in lines) > 50
    keys = [row[:2] for row in TABLE]
    assert len(keys) == len(set(keys))


@pytest.fixture(scope="module")
def load():
    registry = plugins.load([kits.builtin()])
    known: dict[str, recipe.Recipe] = {}

    def loaded(name):
        if name not in known:
            base, _, label = name.partition(":")
            path = ROOT / f"{base}.yaml"
            change = None
            if label:
                sweep = ROOT / "ablations" / f"{base}.yaml"
                read = spec.read(sweep, seeds=None, overlays=(), sets=())
                path, change = read.base, read.changes[label]
            known[name] = recipe.load(path, registry=registry, change=change)
        return known[name]

    return loaded


@pytest.mark.parametrize(("name", "key", "value"), [row[:3] for row in TABLE])
def test_a_recipe_has_the_published_value(load, name, key, value):
    loaded = load(name)
    expected = YAML(typ="safe").load(value)
    if key in COUNTED:
        assert plan.batch_arithmetic(loaded.config)[key] == expected
        return
    config = loaded.resolved
    for part in key.split("."):
        assert isinstance(config, dict), (key, config)
        config = config.get(part)
    assert config == expected
