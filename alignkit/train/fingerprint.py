"""One hash for all that decides the result of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignkit import provenance
from alignkit.machine import here
from alignkit.recipe.plugin_check import used

if TYPE_CHECKING:
    from alignkit.data.datasets import Datasets
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe


def fingerprint(recipe: Recipe, registry: Registry, datasets: Datasets) -> str:
    """The recipe, its plugins' sources, its rows, the versions."""
    sources, rows = {}, {}
    for name, stage in (recipe.stages or {"": recipe}).items():
        for plugin in used(stage.resolved, registry):
            sources[f"{plugin.kind} {plugin.name}"] = plugin.source_hash
        for part, spec in stage.stage.data.parts().items():
            rows[f"{name} {part}"] = datasets.fingerprint(spec.stated, stage.stage.seed)
    decisive = {
        package: version
        for package, version in here.versions().items()
        if package != "vllm"
    }
    return provenance.fingerprint(recipe.resolved, sources, rows, decisive)
