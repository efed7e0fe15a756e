"""Every file under recipes/ is loaded, planned and run in miniature, from data made up
here; none is named here.
"""

from __future__ import annotations

import re
import shlex

import pytest
import tiny_data

from alignkit import kits, plan, plugins, recipe
from alignkit.cli import main
from alignkit.errors import MissingError
from alignkit.recipe import rules, to_yaml
from alignkit.run import find_runs
from alignkit.sweep import check, spec

ROOT = kits.builtin().root / "recipes"
MINI = ROOT / "overlays/mini.yaml"
FILES = sorted(ROOT.rglob("*.yaml"))
OVERLAYS = [path for path in FILES if path.parent == MINI.parent]
SWEEPS = [path for path in FILES if spec.is_sweep_file(path)]
RECIPES = [path for path in FILES if path not in [*OVERLAYS, *SWEEPS]]
# What a machine without GPU, network and keys may lack; data are not among it.
LACKING = ("vLLM", "GPU", "model '")


def named(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module", autouse=True)
def _data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "ALIGN_DATA", str(tiny_data.write(tmp_path_factory.mktemp("data")))
        )
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


def planned(registry, path, *overlays):
    return plan.plan(recipe.load(path, overlays, registry=registry), registry)


def test_every_kind_of_file_is_found():
    assert (
        len(RECIPES) > 12
        and len(SWEEPS) > 12
        and MINI in OVERLAYS
        and len(OVERLAYS) >= 5
    )


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_plans_and_lacks_only_what_this_machine_lacks(registry, path):
    for stage in planned(registry, path):
        assert stage.wrong == []
        assert [
            text for text in stage.missing if not any(word in text for word in LACKING)
        ] == []


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_in_miniature_lacks_nothing(registry, path):
    for stage in planned(registry, path, MINI):
        assert (stage.wrong, stage.missing) == ([], [])


@pytest.mark.parametrize(
    "overlay", [path for path in OVERLAYS if path != MINI], ids=named
)
@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_an_overlay_fits_every_recipe(registry, path, overlay):
    loaded, plain = (
        recipe.load(path, [overlay], registry=registry),
        recipe.load(path, registry=registry),
    )
    for name, stage in (loaded.stages or {"": loaded}).items():
        assert list(rules.check(stage.config)) == []
        arithmetic = plan.batch_arithmetic(stage.config)
        # how much fits at once decides no result
        if "gpu" in overlay.name and path.name != "quickstart.yaml":
            before = plan.batch_arithmetic((plain.stages or {"": plain})[name].config)
            assert (
                arithmetic["rows per optimizer step"]
                == before["rows per optimizer step"]
            )


@pytest.mark.parametrize("path", SWEEPS, ids=named)
def test_a_sweep_plans_and_its_variants_differ(registry, path):
    try:
        check.check_sweep(spec.read(path, seeds=None, overlays=(), sets=()), registry)
    except MissingError as error:
        missing = [
            text
            for text in error.missing
            if not any(word in text for word in (*LACKING, "mini"))
        ]
        assert missing == []
    checked = check.check_sweep(
        spec.read(path, seeds=None, overlays=[MINI], sets=()), registry
    )
    assert len(checked.variants) > 1


def run(*arguments):
    """The exit code of `align run` in this process, which spares the imports."""
    with pytest.raises(SystemExit) as left:
        main(["run", *map(str, arguments)])
    return left.value.code


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_runs_in_miniature(tmp_path, path):
    assert run(path, "--with", MINI, "--out", tmp_path) == 0
    (made,) = find_runs(tmp_path)
    assert made.status == "done"
    finished = [
        *tmp_path.glob("*/model/config.json"),
        *tmp_path.glob("*/stages/*/model/config.json"),
    ]
    assert len(finished) == len(recipe.load(path, [MINI]).stages or [path])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", SWEEPS, ids=named)
def test_every_variant_of_a_sweep_runs_in_miniature(tmp_path, registry, path):
    checked = check.check_sweep(
        spec.read(path, seeds=None, overlays=[MINI], sets=()), registry
    )
    for variant in checked.variants:
        file = tmp_path / f"{variant.label}.yaml"
        loaded = next(iter(variant.recipes.values()))
        file.write_text(to_yaml(loaded.resolved))
        fewer = {
            "expert_iteration": ["--set", "expert_iteration.iterations=1"],
            "pipeline": [],
        }
        sets = fewer.get(loaded.config.method, ["--set", "train.max_steps=1"])
        code = run(file, *sets, "--out", tmp_path / "runs")
        assert code == 0, variant.label
    made = find_runs(tmp_path / "runs")
    assert [one.status for one in made] == ["done"] * len(checked.variants)
    assert len({one.manifest["fingerprint"] for one in made}) == len(made)


def commands(name):
    """The commands on recipes in a guide."""
    text = (ROOT.parent / "docs" / name).read_text()
    found = re.findall(r"`align ((?:run|sweep) recipes/[^`]+)`", text)
    return [shlex.split(command) for command in dict.fromkeys(found)]


@pytest.mark.skipif(
    not (ROOT.parent / "docs").is_dir(), reason="an installed alignkit has no guides"
)
@pytest.mark.parametrize("command", commands("reproduce.md"), ids=" ".join)
def test_a_command_of_the_guide_to_reproducing_plans(registry, command):
    kind, name, *rest = command
    assert rest[0::2] == ["--set"] * (len(rest) // 2)
    path, sets = ROOT.parent / name, rest[1::2]
    if kind == "run":
        for stage in plan.plan(
            recipe.load(path, sets=sets, registry=registry), registry
        ):
            assert stage.wrong == []
    else:
        check.check_sweep(
            spec.read(path, seeds=None, overlays=[MINI], sets=sets), registry
        )


def test_the_guide_to_reproducing_names_every_ablation():
    text = (ROOT.parent / "docs/reproduce.md").read_text()
    assert [
        path.name for path in SWEEPS if f"recipes/ablations/{path.name}" not in text
    ] == []
