"""How recipes inherit: extends, overlays, --set, and the rules beyond deep merging."""

import pytest

from alignkit import recipe
from alignkit.errors import RecipeError

GRPO = """\
method: grpo
name: parent
seed: 7
model: {path: some/model, revision: v1, dtype: bfloat16}
data: {train: {dataset: arithmetic, split: train, size: 9, limit: 5}, prompt: arithmetic}
rewards: {exact: {weight: 2.0, strict: true}, format: {}}
loss: {name: grpo_clip, normalize: constant, constant: 64, cliprange: 0.2}
advantage: {name: group, scale: std}
generation: {stop: [a, b], max_new_tokens: 9}
train: {learning_rate: 1e-5, max_steps: 3}
evals: {arithmetic: {every: 5}, math: {limit: 3}}
"""
SFT = (
    "method: sft\nmodel: {build: {}}\ndata: {train: {dataset: arithmetic}}\ntrain:"
    " {max_steps: 9, max_length: 64}\n"
)
PIPELINE = """\
method: pipeline
seed: 3
stages:
  sft: {extends: sft.yaml, train: {max_steps: 5}}
  grpo: {extends: grpo.yaml, model: {path: stage:sft}}
"""


@pytest.fixture
def files(tmp_path):
    def files(**texts):
        for name, text in {
            "grpo": GRPO,
            "sft": SFT,
            "pipeline": PIPELINE,
            **texts,
        }.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path

    return files


@pytest.fixture
def child(files):
    """The resolved recipe of a child of `grpo.yaml`."""

    def child(text, **options):
        return recipe.load(
            files(child="extends: grpo.yaml\n" + text) / "child.yaml", **options
        )

    return child


@pytest.fixture
def refused(files):
    def refused(name, overlays=(), sets=(), **texts):
        folder = files(**texts)
        with pytest.raises(RecipeError) as caught:
            recipe.load(
                folder / f"{name}.yaml", [folder / f"{o}.yaml" for o in overlays], sets
            )
        return str(caught.value).replace(f"{folder}/", "")

    return refused


def test_maps_merge_deep_and_the_rest_replaces(child):
    config = child("train: {max_steps: 4}\ngeneration: {stop: [c]}\nseed: 8\n").config
    assert config.train == {"learning_rate": 1e-5, "max_steps": 4}
    assert (config.generation.stop, config.generation.max_new_tokens, config.seed) == (
        ["c"],
        9,
        8,
    )


def test_a_child_is_named_by_its_own_file(child):
    assert child("").config.name == "child"


def test_one_option_of_one_reward_can_be_changed(child):
    rewards = child("rewards: {exact: {strict: false}}").config.rewards
    assert (rewards["exact"].options, rewards["exact"].weight, list(rewards)) == (
        {"strict": False},
        2.0,
        ["exact", "format"],
    )


def test_a_tilde_deletes_and_null_is_a_value(child):
    config = child("rewards: {format: ~}\nevals: ~\ntrain: {max_steps: ~}\n").config
    assert (list(config.rewards), config.evals, config.train) == (
        ["exact"],
        {},
        {"learning_rate": 1e-5},
    )


def test_null_in_train_is_trls_none(files):
    loaded = recipe.load(
        files(child="extends: sft.yaml\ntrain: {max_length: null}") / "child.yaml"
    )
    assert loaded.config.train["max_length"] is None
    assert "max_length: null" in recipe.to_yaml(loaded.resolved)


def test_deleting_what_is_not_inherited_names_the_nearest(refused):
    text = refused("child", child="extends: grpo.yaml\ntrain: {learning_rat: ~}")
    assert (
        text
        == "child.yaml:2:9: train.learning_rat: ~ deletes an inherited key, and there"
        " is none; did you mean 'learning_rate'?"
    )


def test_a_name_with_nothing_behind_it_states_no_options(child):
    assert (
        child("rewards:\n  length:\n  exact:\n").config.rewards["length"].options == {}
    )
    assert child("rewards:\n  exact:\n").config.rewards["exact"].weight == 2.0


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (
            "loss: {name: other}",
            "loss",
            {"name": "other", "normalize": "constant", "constant": 64},
        ),
        ("loss: {name: grpo_clip}", "loss.cliprange", 0.2),
        (
            "loss: {normalize: token}",
            "loss",
            {"name": "grpo_clip", "normalize": "token", "cliprange": 0.2},
        ),
        ("loss: {normalize: constant}", "loss.constant", 64),
        ("advantage: {name: raw}", "advantage", {"name": "raw"}),
        (
            "data: {train: {dataset: math}}",
            "data.train",
            {"dataset": "math", "limit": 5},
        ),
        ("data: {train: {size: 4}}", "data.train.split", "train"),
        (
            "model: {path: other/model}",
            "model",
            {"path": "other/model", "dtype": "bfloat16", "attention": "auto"},
        ),
        ("model: {build: {layers: 1}}", "model.path", None),
        ("model: {build: {layers: 1}}", "model.revision", None),
        ("model: {build: {layers: 1}}", "model.dtype", "bfloat16"),
        ("data: {prompt: {template: x}}", "data.prompt", {"template": "x"}),
    ],
)
def test_options_of_what_a_child_replaces_go(child, text, key, expected):
    value = child(text).resolved
    for name in key.split("."):
        value = value.get(name)
    assert value == expected


def test_build_merges_with_build_and_path_replaces_it(files):
    folder = files(
        a="extends: sft.yaml\nmodel: {build: {layers: 3}}",
        b="extends: a.yaml\nmodel: {build: {heads: 2}}",
    )
    build = recipe.load(folder / "b.yaml").config.model.build
    assert (build.layers, build.heads) == (3, 2)
    files(c="extends: b.yaml\nmodel: {path: x/y}")
    assert recipe.load(folder / "c.yaml").config.model.build is None


def test_of_several_parents_the_later_wins_and_a_shared_one_counts_once(files):
    folder = files(
        a="extends: grpo.yaml\ntrain: {max_steps: 10, beta: 0.1}\n",
        b="extends: grpo.yaml\ntrain: {max_steps: 20}\n",
        child="extends: [a.yaml, b.yaml]\n",
    )
    loaded = recipe.load(folder / "child.yaml")
    assert loaded.config.train == {"learning_rate": 1e-5, "max_steps": 20, "beta": 0.1}
    assert loaded.parents == (folder / "a.yaml", folder / "b.yaml")
    assert loaded.origins["train.max_steps"].file == str(folder / "b.yaml")


def test_an_origin_says_file_line_and_kind(files):
    folder = files(
        child="extends: grpo.yaml\nseed: 9\n", over="advantage:\n  scale: none\n"
    )
    loaded = recipe.load(
        folder / "child.yaml", [folder / "over.yaml"], ["train.max_steps=1"]
    )
    at = {
        key: (origin.kind, str(origin).replace(f"{folder}/", ""))
        for key, origin in loaded.origins.items()
    }
    assert at["seed"] == ("recipe", "child.yaml:2:1")
    assert at["train.learning_rate"] == ("parent", "grpo.yaml:10:9")
    assert at["advantage.scale"] == ("overlay", "over.yaml:2:3")
    assert at["train.max_steps"] == ("set", "--set train.max_steps=1")
    assert at["launch.processes"] == ("default", "default")


@pytest.mark.parametrize(
    ("texts", "chain"),
    [
        ({"a": "extends: a.yaml"}, "a.yaml -> a.yaml"),
        (
            {"a": "extends: b.yaml", "b": "extends: [sft.yaml, a.yaml]"},
            "a.yaml -> b.yaml -> a.yaml",
        ),
        (
            {"a": "method: pipeline\nstages: {x: {extends: a.yaml}}"},
            "a stage extends its own pipeline",
        ),
    ],
)
def test_cycles_are_refused_with_their_chain(refused, texts, chain):
    text = refused("a", **texts)
    assert "extends: a cycle: " in text and text.endswith(chain)


def test_a_missing_parent_is_named_with_its_place(refused):
    text = refused("child", child="extends: grop.yaml\n")
    assert text.startswith(
        "child.yaml:1:1: extends: there is no file grop.yaml; did you mean 'grpo.yaml'?"
    )
    assert "child.yaml:1:1: extends: expected the path" in refused(
        "child", child="extends: 3\n"
    )


def test_a_parent_is_looked_for_in_the_kits_recipes(files, tmp_path):
    kit = tmp_path / "kit" / "recipes"
    kit.mkdir(parents=True)
    (kit / "base.yaml").write_text(SFT)
    for name in ("base.yaml", "recipes/base.yaml"):
        folder = files(child=f"extends: {name}\n")
        assert (
            recipe.load(folder / "child.yaml", recipe_dirs=[kit]).config.train[
                "max_steps"
            ]
            == 9
        )


MINI = """\
model: {build: {layers: 1}}
evals: {"*": {limit: 2}}
seed: 11
methods:
  sft: {train: {max_steps: 1, packing: ~}}
  grpo:
    train: {max_steps: 2}
    generation: {max_new_tokens: 4, vllm: ~}
"""


def test_an_overlay_has_a_block_for_each_method(files):
    folder = files(mini=MINI)
    sft = recipe.load(folder / "sft.yaml", [folder / "mini.yaml"]).config
    grpo = recipe.load(folder / "grpo.yaml", [folder / "mini.yaml"]).config
    assert (
        sft.train["max_steps"],
        sft.model.build.layers,
        hasattr(sft, "generation"),
    ) == (
        1,
        1,
        False,
    )
    assert (
        grpo.train["max_steps"],
        grpo.generation.sampling.max_new_tokens,
        grpo.model.path,
    ) == (2, 4, None)
    assert {name: e.limit for name, e in grpo.evals.items()} == {
        "arithmetic": 2,
        "math": 2,
    }


def test_an_overlay_reaches_every_stage_and_leaves_the_chain_of_models(files):
    folder = files(mini=MINI)
    loaded = recipe.load(folder / "pipeline.yaml", [folder / "mini.yaml"])
    sft, grpo = loaded.config.stages["sft"], loaded.config.stages["grpo"]
    assert (sft.train["max_steps"], grpo.train["max_steps"]) == (1, 2)
    assert sft.model.build.layers == 1
    assert (grpo.model.path, grpo.model.build) == ("stage:sft", None)
    assert (loaded.config.seed, sft.seed, grpo.seed) == (11, 11, 11)


def test_later_overlays_and_then_sets_win(files):
    folder = files(a="seed: 1\ntrain: {max_steps: 1}", b="train: {max_steps: 2}")
    loaded = recipe.load(
        folder / "sft.yaml",
        [folder / "a.yaml", folder / "b.yaml"],
        ["train.max_steps=3", "seed=5"],
    )
    assert (loaded.config.train["max_steps"], loaded.config.seed) == (3, 5)
    assert (
        recipe.load(
            folder / "sft.yaml", [folder / "b.yaml", folder / "a.yaml"]
        ).config.train["max_steps"]
        == 1
    )


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        (
            "generation: {top_k: 3}",
            "over.yaml:1:1: generation: method sft has no use for it",
        ),
        ("generation: {top_k: 3}", "(an overlay puts it under methods: {grpo: …})"),
        (
            "methods: {grop: {}}",
            (
                "over.yaml:1:11: methods.grop: there is no such method; did you mean"
                " 'grpo'?"
            ),
        ),
        ("methods: {sft: 3}", "methods.sft: expected a map of recipe keys"),
        ("methods: 3", "methods: expected a map from methods to keys"),
        (
            "method: grpo",
            "this overlay is for grpo, the recipe's method is sft; it does not apply",
        ),
        (
            "train: {max_stesp: ~}",
            "train.max_stesp: there is no such key; did you mean 'max_steps'?",
        ),
        ("trian: ~", "trian: there is no such key; did you mean 'train'?"),
        ("[a]", "a recipe is a map of keys"),
    ],
)
def test_an_overlay_that_does_not_apply_is_refused(refused, overlay, expected):
    assert expected in refused("sft", ["over"], over=overlay)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.learning_rate=1e-6", "train.learning_rate", 1e-6),
        ("generation.stop=[x, 'y z']", "generation.stop", ["x", "y z"]),
        ("generation.stop=['</a>']", "generation.stop", ["</a>"]),
        ("rewards.format=~", "rewards.format", None),
        ("data.prompt={template: 'a: b'}", "data.prompt", {"template": "a: b"}),
        ("evals.*.limit=2", "evals.math.limit", 2),
        ("description='no'", "description", "no"),
        ("description=a=b", "description", "a=b"),
    ],
)
def test_set_takes_yaml_values(files, text, key, value):
    found = recipe.load(files() / "grpo.yaml", sets=[text]).resolved
    for name in key.split("."):
        found = found.get(name)
    assert found == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed", "--set seed: expected key.sub=value"),
        ("=3", "--set =3: expected key.sub=value"),
        ("a..b=3", "--set a..b=3: expected key.sub=value"),
        ("seed=", "--set seed=: no value given"),
        ("seed=[1", "--set seed=[1: not YAML"),
        ("sed=1", "--set sed=1: sed: there is no such key; did you mean 'seed'?"),
        (
            "train.max_steps=few",
            (
                "--set train.max_steps=few: train.max_steps: given 'few' (text),"
                " expected a whole number"
            ),
        ),
        (
            "train.max_step=~",
            (
                "train.max_step: ~ deletes an inherited key, and there is none; did you"
                " mean 'max_steps'?"
            ),
        ),
        ("seed.x=1", "seed: given a map of x, expected a whole number"),
    ],
)
def test_a_wrong_set_is_named_as_typed(refused, text, expected):
    assert expected in refused("sft", sets=[text])


def test_a_pipelines_stages_are_whole_recipes(files):
    loaded = recipe.load(files() / "pipeline.yaml")
    sft, grpo = loaded.stages["sft"], loaded.stages["grpo"]
    assert (sft.config.name, sft.config.train["max_steps"], sft.config.seed) == (
        "sft",
        5,
        3,
    )
    assert grpo.resolved["model"]["path"] == "stage:sft"
    assert grpo.origins["train.max_steps"].file.endswith("grpo.yaml")
    assert loaded.origins["stages.sft.train.max_steps"].file.endswith("pipeline.yaml")


def test_a_resolved_pipeline_still_takes_a_seed_for_all_its_stages(files, tmp_path):
    text = recipe.to_yaml(recipe.load(files() / "pipeline.yaml").resolved)
    (tmp_path / "again.yaml").write_text(text)
    again = recipe.load(
        tmp_path / "again.yaml", sets=["seed=5", "stages.sft.train.max_steps=6"]
    )
    assert {stage.config.seed for stage in again.stages.values()} == {5}
    assert again.config.stages["sft"].train["max_steps"] == 6


def test_in_a_pipeline_set_goes_to_every_stage_that_uses_the_key(files):
    sets = [
        "generation.engine=vllm",
        "train.max_steps=2",
        "model.path=other/model",
        "stages.grpo.train.max_steps=4",
    ]
    stages = recipe.load(files() / "pipeline.yaml", sets=sets).resolved["stages"]
    assert (
        stages["grpo"]["generation"]["engine"] == "vllm"
        and "generation" not in stages["sft"]
    )
    assert [stages[name]["train"]["max_steps"] for name in ("sft", "grpo")] == [2, 4]
    assert [stages[name]["model"]["path"] for name in ("sft", "grpo")] == [
        "other/model",
        "stage:sft",
    ]
    with pytest.raises(
        RecipeError, match="expert_iteration: method pipeline has no use for it"
    ):
        recipe.load(files() / "pipeline.yaml", sets=["expert_iteration.questions=4"])


def test_set_names_the_nearest_stage(files):
    with pytest.raises(
        RecipeError,
        match=(
            r"--set stages.gpro.seed=1: there is no stage 'gpro'; did you mean 'grpo'\?"
        ),
    ):
        recipe.load(files() / "pipeline.yaml", sets=["stages.gpro.seed=1"])


def test_a_child_pipeline_changes_and_deletes_stages(files):
    folder = files(
        child=(
            "extends: pipeline.yaml\nstages: {sft: ~, grpo: {model: {path: x/y},"
            " rewards: {format: ~}}}"
        )
    )
    loaded = recipe.load(folder / "child.yaml")
    assert list(loaded.stages) == ["grpo"]
    assert list(loaded.config.stages["grpo"].rewards) == ["exact"]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (
            "{a: {extends: grpo.yaml, model: {path: stage:b}}, b: {extends: sft.yaml}}",
            "is no earlier stage; this is",
        ),
        (
            (
                "{first: {extends: sft.yaml}, b: {extends: sft.yaml, model: {path:"
                " stage:frist}}}"
            ),
            "did you mean 'first'?",
        ),
        (
            "{a: {extends: sft.yaml, seed: 4}}",
            "stages.a.seed: stands once, at the top of the pipeline",
        ),
        (
            "{a: {extends: sft.yaml, name: x}}",
            "stages.a.name: a stage is named by its key",
        ),
        ("{a: {recipe: sft.yaml}}", "a stage names its recipe with extends: PATH"),
        (
            '{"../a": {extends: sft.yaml}}',
            "a stage's name may hold letters, digits, _ and - only",
        ),
        ("{a: {method: pipeline}}", "a stage cannot be a pipeline itself"),
        ("{a: sft.yaml}", "stages.a: given 'sft.yaml' (text), expected a map"),
        (
            "{a: {extends: sft.yaml, rewards: {x: {}}}}",
            "stages.a.rewards: method sft has no use for it",
        ),
        (
            "{a: {extends: sft.yaml, train: {max_step: 1}}}",
            "stages.a.train.max_step: TRL's SFTConfig has no such field",
        ),
        ("{}", "stages: is empty; method pipeline needs it"),
        (
            "{a: {extends: sft.yaml, rewardz: {}}}",
            "stages.a.rewardz: there is no such key; did you mean 'rewards'?",
        ),
        ("{a: {methodd: sft}}", "stages.a.methodd: there is no such key; did you mean"),
        ("{a: {method: [sft]}}", "stages.a.method: given the list ['sft'], expected"),
    ],
)
def test_stages_are_checked(refused, stages, expected):
    assert expected in refused("p", p=f"method: pipeline\nstages: {stages}")


def test_a_pipeline_itself_has_no_training_keys(refused):
    text = refused("pipeline", pipeline=PIPELINE + "train: {max_steps: 3}\n")
    assert "train: method pipeline has no use for it" in text and text.endswith(
        "state it in a stage"
    )
    beside = refused("p", p="method: pipeline\nstages: {a: 1}\ntrain: {max_steps: 3}\n")
    assert "train: method pipeline has no use for it" in beside
