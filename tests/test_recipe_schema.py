"""Recipe keys are declared once, and the walker says of them what their readers need."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import alignkit
from alignkit import recipe, sampling
from alignkit.errors import RecipeError
from alignkit.recipe import trl
from alignkit.recipe.schema import METHODS, walk
from alignkit.recipe.schema.reference import reference

ROOT = Path(alignkit.__file__).parent
GRPO = """method: grpo
model: {path: some/model}
data: {train: {dataset: arithmetic}}
rewards: {exact: {}}
"""


@pytest.fixture
def load(tmp_path):
    def load(text, name="r.yaml", **options):
        (tmp_path / name).write_text(text)
        return recipe.load(tmp_path / name, **options)

    return load


def test_the_page_of_all_keys_is_the_one_that_the_declarations_make():
    page = Path(__file__).parent.parent / "docs" / "keys.md"
    assert page.read_text() == reference(), "align schema --keys > docs/keys.md"


@pytest.mark.parametrize("path", walk.declarations(), ids=".".join)
def test_a_key_means_the_same_in_every_method_that_has_it(path):
    known = walk.declarations()[path]
    assert set(known.methods) <= set(METHODS)
    for method in known.methods:
        section = METHODS[method]
        for part in path[:-1]:
            if part != "*":
                section = walk._section(section.model_fields[part].annotation)
        declared = section.model_fields[path[-1]]
        keys = [m for m in declared.metadata if isinstance(m, walk.Key)]
        assert keys in ([], [known.key]) or path == ("method",)


@pytest.mark.parametrize("path", walk.declarations(), ids=".".join)
def test_what_a_key_names_beside_it_is_there(path):
    key = walk.declarations()[path].key
    beside = {p[-1] for p in walk.declarations() if p[:-1] == path[:-1]}
    assert beside >= {*key.belongs_to, *key.instead_of}


def test_what_keys_hand_to_trl_are_fields_of_its_configs():
    for known in walk.declarations().values():
        for method in set(known.methods) - {"pipeline"}:
            if known.key.trl and method != "expert_iteration":
                assert known.key.trl in trl.fields(method), (known.dotted, method)


@pytest.mark.parametrize("name", sampling.OPTIONS)
def test_a_sampling_option_is_a_key_of_generation_and_of_evals(name):
    default = sampling.DEFAULTS[name]
    for path in (("generation", name), ("evals", "*", "sampling", name)):
        assert path in walk.declarations()
    field = walk.declarations()["generation", name].field
    stated = field.get_default(call_default_factory=True)
    assert stated == (list(default) if name == "stop" else default)


def test_every_sampling_option_has_a_name_at_every_engine_or_a_field_at_trl():
    for name, option in sampling.OPTIONS.items():
        assert option.vllm, name
        assert option.trl or option.transformers, name
        assert option.openai or option.vllm_server, name


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("min_p", "min_p", 0.25), ("repetition_penalty", "repetition_penalty", 1.5)],
)
def test_an_old_key_means_the_new_one_and_says_so(load, caplog, old, new, value):
    config = load(GRPO + f"train: {{{old}: {value}, max_steps: 2}}\n").config
    assert getattr(config.generation.sampling, new) == value
    assert config.train == {"max_steps": 2}
    assert f"r.yaml:5:9: train.{old} is now called generation.{new}" in caplog.text


def test_an_old_key_is_read_in_overlays_stages_and_on_the_command_line(load, tmp_path):
    (tmp_path / "over.yaml").write_text("methods: {grpo: {train: {min_p: 0.5}}}\n")
    assert load(GRPO, overlays=[tmp_path / "over.yaml"]).config.generation.min_p == 0.5
    assert load(GRPO, sets=["train.min_p=0.5"]).config.generation.min_p == 0.5
    stages = (
        "method: pipeline\nstages:\n  a:\n    extends: r.yaml\n    train: {min_p: 0.5}"
    )
    load(GRPO)
    pipeline = load(stages + "\n", "p.yaml")
    assert pipeline.stages["a"].config.generation.min_p == 0.5
    sets = ["train.min_p=0.25"]
    assert load(stages, "p.yaml", sets=sets).stages["a"].config.generation.min_p == 0.25


def test_an_old_and_a_new_key_at_once_are_refused(load):
    both = GRPO + "train: {min_p: 0.1}\ngeneration: {min_p: 0.2}\n"
    with pytest.raises(RecipeError, match="min_p: is now called") as caught:
        load(both)
    assert "state it once" in str(caught.value)


# Module-level names whose strings happen to be recipe keys, each with its reason.
TABLES = {
    # kinds of plugins and their hooks, some of which a key is called after
    "plugins/plugin.py KINDS",
    "cli/templates.py TEMPLATES",
    # columns of a row that say how it was graded
    "data/distill.py GRADES",
    # fields of a row of rollouts
    "train/tables.py ROLLOUT",
    # what the core itself hands to a dataset's function: the contract of its plugins
    "plugins/plugin.py CORE_ARGUMENTS",
    # what changes how long a run takes, not how fast it goes
    "plan/estimate.py _DECIDES",
    # fields of a summary's provenance
    "report/comparability.py MEASURED_BY",
    "report/comparability.py _MAY_DIFFER",
}


def test_no_other_module_has_a_table_of_recipe_keys():
    """A module-level map or set with three or more declared keys as its strings."""
    keys = {path[-1] for path in walk.declarations()}
    tables = set()
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name.startswith(("recipe/schema/", "kit/")) or name == "sampling.py":
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign):
                target = node.targets[0]
            elif isinstance(node, ast.AnnAssign):
                target = node.target
            else:
                continue
            words = {
                part.value
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
            # names that a package exports are no table
            if len(words & keys) >= 3 and ast.unparse(target) != "__all__":
                tables.add(f"{name} {ast.unparse(target)}")
    assert tables == TABLES


def test_the_engines_options_carry_no_default_of_their_own():
    assert {f.name for f in dataclasses.fields(sampling.Sampling)} == {
        *sampling.DEFAULTS
    }
