"""Loading a recipe: what it holds, and every way in which a file can be wrong."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.errors import RecipeError
from alignkit.recipe import yaml

GRPO = """\
method: grpo
seed: 7
model: {path: some/model}
data: {train: {dataset: arithmetic}, prompt: arithmetic}
rewards: {exact: {}}
loss: {name: grpo_clip, normalize: sequence, cliprange: 0.2}
train: {learning_rate: 1e-5, num_generations: 4}
evals: {arithmetic: {every: 5}}
"""
SFT = """\
method: sft
model: {path: some/model}
data: {train: {dataset: arithmetic}}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="r.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def problems(write, tmp_path):
    """The problems of a text, without the folder."""

    def problems(text, name="r.yaml", **options):
        path = write(text, name)
        with pytest.raises(RecipeError) as caught:
            recipe.load(path, **options)
        return [p.replace(f"{tmp_path}/", "") for p in caught.value.problems]

    return problems


def test_a_recipe_gives_typed_settings_and_their_origins(write):
    path = write(GRPO)
    loaded = recipe.load(path)
    assert loaded.config.train == {"learning_rate": 1e-5, "num_generations": 4}
    assert loaded.config.loss.options == {"cliprange": 0.2}
    assert loaded.config.generation.max_new_tokens == 1024
    assert loaded.config.name == "r"
    assert loaded.origins["train.learning_rate"] == recipe.Origin(
        str(path), 7, 9, "recipe"
    )
    assert loaded.origins["generation.temperature"].kind == "default"
    assert set(loaded.origins) >= {"loss", "loss.name", "evals.arithmetic.every"}


def test_the_resolved_recipe_runs_again_as_it_is(write):
    first = recipe.load(write(GRPO))
    second = recipe.load(write(recipe.to_yaml(first.resolved), "elsewhere/again.yaml"))
    assert second.resolved == first.resolved
    assert second.config == first.config


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("0o17", 15),
        ("010", 10),
        ("0x1F", 31),
        ("-3", -3),
    ],
)
def test_numbers_are_yaml_1_2(written, value):
    given = yaml.scalar(written)
    assert given == value
    assert type(given) is type(value)


@pytest.mark.parametrize(
    "written",
    [
        "no",
        "on",
        "yes",
        "off",
        "y",
        "1_000",
        "12:30:00",
        "2024-01-01",
        "1e",
        ".",
        "0o9",
    ],
)
def test_words_that_older_yaml_converts_stay_text(written):
    assert yaml.scalar(written) == written


def test_yes_and_no_stay_text_where_text_is_expected(write):
    loaded = recipe.load(
        write(
            SFT
            + "description: no\ntrain: {save_strategy: no, run_name: x}\n".replace(
                ", run_name: x", ""
            )
        )
    )
    assert (loaded.config.description, loaded.config.train) == (
        "no",
        {"save_strategy": "no"},
    )


@pytest.mark.parametrize("word", ["no", "yes", "off"])
def test_yes_and_no_are_errors_where_a_truth_value_is_expected(problems, word):
    truth = {"no": "false", "yes": "true", "off": "false"}[word]
    core, train = problems(
        SFT + f"evals: {{math: {{before: {word}}}}}\ntrain: {{bf16: {word}}}\n"
    )
    assert core.startswith("r.yaml:4:16: evals.math.before: given")
    assert train.startswith("r.yaml:5:9: train.bf16: given")
    assert (
        core.endswith(f"write {truth} ('{word}' is text in YAML 1.2)")
        and f"write {truth}" in train
    )


def test_all_errors_are_reported_at_once_in_the_order_of_the_file(problems):
    found = problems("""\
method: grpo
trian: {}
seed: 1.5
model: {path: x, dtype: bfloat61}
data: {train: {dataset: arithmetic}}
rewards: {exact: {weight: heavy}}
loss: {name: grpo_clip, normalize: sequenc}
train: {learing_rate: 1, max_steps: true}
launch: {processes: 0}
seed: 2
""")
    assert [p.split(": ")[0] for p in found] == [
        "r.yaml:10:1", "r.yaml:2:1", "r.yaml:3:1", "r.yaml:4:18", "r.yaml:6:19", "r.yaml:7:25", "r.yaml:8:9",
        "r.yaml:8:26", "r.yaml:9:10",
    ]  # fmt: skip
    text = "\n".join(found)
    for part in (
        "seed: this key stands twice; first at",
        "trian: there is no such key; did you mean 'train'?",
        "seed: given 1.5, expected a whole number",
        "did you mean 'bfloat16'?",
        "rewards.exact.weight: given 'heavy' (text), expected a number",
        "did you mean 'sequence'?",
        "TRL's GRPOConfig has no such field; did you mean 'learning_rate'?",
        "train.max_steps: given true, expected a whole number",
        "launch.processes: given 0, expected at least 1",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "method: sft\n\tseed: 1\n",
            "r.yaml:2:1: not YAML: a tab; YAML is indented by spaces",
        ),
        ("method: sft\ntrain: [1\n", "r.yaml:3:1: not YAML: expected ',' or ']'"),
        (
            "method: sft\nname: a: b\n",
            "r.yaml:2:8: not YAML: a second ':' on this line",
        ),
        ("method: 'sft\n", "r.yaml:2:1: not YAML: found unexpected end of stream"),
        ("name: @x\n", "r.yaml:1:7: not YAML: found character '@'"),
        ("name: *x\n", "r.yaml:1:7: '*x' names no anchor above it"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2:1: a second document"),
        ("? [a]\n: b\n", "r.yaml:1:3: a key must be a word"),
        ("", "r.yaml:1:1: a recipe is a map of keys; it is empty"),
        ("# only words\n", "r.yaml:1:1: a recipe is a map of keys; it is empty"),
        ("- a\n- b\n", "r.yaml:1:1: a recipe is a map of keys; given the list"),
        (
            "just text\n",
            "r.yaml:1:1: a recipe is a map of keys; given 'just text' (text)",
        ),
        (b"\x7fELF\x02\x01\x00\x00\xff\xfe", "r.yaml:1:1: not UTF-8 text"),
        (b"method: sft\n\x00\n", "r.yaml:2:1: a control character stands here"),
        ("a: " + "[" * 60, "nested deeper than 40 levels"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_place(problems, text, expected):
    assert expected in problems(text)[0]


def test_tags_cannot_build_objects(problems):
    found = problems("method: sft\nname: !!python/object/apply:os.system ['true']\n")
    assert found[0].startswith(
        "r.yaml:2:7: the tag tag:yaml.org,2002:python/object/apply:os.system"
    )


def test_aliases_cannot_blow_up_memory(problems):
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for i in range(12):
        text += f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n"
    assert "more than 50000 values" in problems(text)[0]


def test_a_folder_and_a_missing_file_name_what_exists(write, tmp_path):
    write(SFT, "grpo_math.yaml")
    with pytest.raises(
        RecipeError,
        match=r"this is a folder; give a recipe file, such as .*grpo_math\.yaml",
    ):
        recipe.load(tmp_path)
    with pytest.raises(
        RecipeError,
        match=r"there is no file .*grpo_meth\.yaml; did you mean 'grpo_math\.yaml'\?",
    ):
        recipe.load(tmp_path / "grpo_meth.yaml")


def test_an_enormous_file_is_refused_unread(problems):
    assert "too many for a recipe" in problems(b"#" * 1_100_000)[0]


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (
            "rewards: {exact: {}}",
            (
                "rewards: method sft has no use for it; it is for grpo, rloo,"
                " expert_iteration"
            ),
        ),
        ("generation: {temperature: 1}", "generation: method sft has no use for it"),
        (
            "advantage: {name: group}",
            "advantage: method sft has no use for it; it is for grpo, rloo",
        ),
        (
            "expert_iteration: {questions: 1, rollouts: 1}",
            "expert_iteration: method sft has no use for it",
        ),
        ("stages: {}", "stages: method sft has no use for it; it is for pipeline"),
        (
            "methods: {sft: {}}",
            "methods: only an overlay (--with) has a block for each method",
        ),
        (
            "loss: {name: sft, constant: 3}",
            "loss.constant: is read only with normalize: constant",
        ),
        ("loss: {name: trl, normalize: token}", "loss.normalize: is for loss plugins"),
        (
            "loss: {name: trl, loss_type: nnl}",
            "loss.loss_type: given 'nnl', expected one of nll, dft",
        ),
        (
            "loss: {name: trl, epsilon: 1}",
            "loss.epsilon: is no option of TRL's own loss for sft",
        ),
        ("train: 3", "train: given 3, expected a map"),
        ("track: wandb", "track: given 'wandb' (text), expected a list"),
        (
            "track: [wand]",
            (
                "track.0: given 'wand' (text), expected one of wandb, trackio,"
                " tensorboard; did you mean"
            ),
        ),
        ("evals: [math]", "evals: given the list ['math'], expected a map"),
        (
            "evals: {math: {split: a, data: {split: b}}}",
            "evals.math.data.split: the eval's own split says it already",
        ),
        (
            "evals: null",
            (
                "evals: given nothing (null), expected a map; ~ (not null) deletes an"
                " inherited key"
            ),
        ),
        ("evals: {math: {limit: 0}}", "evals.math.limit: given 0, expected at least 1"),
        (
            "evals: {math: {sampling: {top_p: .nan}}}",
            "evals.math.sampling.top_p: given nan, expected a finite number",
        ),
        (
            "evals: {math: {sampling: {temprature: 0}}}",
            "no such key; did you mean 'temperature'?",
        ),
        (
            "output: {root: ~}",
            "output.root: ~ deletes an inherited key, and there is none",
        ),
        ("track: [~]", "track.0: ~ deletes a key; it has no meaning in a list"),
    ],
)
def test_sections_are_checked_against_the_method(problems, added, expected):
    assert any(expected in p for p in problems(SFT + added)), problems(SFT + added)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{}", "r.yaml:2:1: model: needs either path or build; neither is given"),
        ("{dtype: auto}", "model: needs either path or build; neither is given"),
        ("{path: a, build: {}}", "model: needs either path or build; both are given"),
        ("{path: 'stage:sft'}", "only a stage of a pipeline can start from a stage"),
        (
            "{build: {hidden_size: 60, heads: 8}}",
            "60 is not divisible by 2 x heads (8)",
        ),
        ("{build: {tokenizer: byte}}", "did you mean 'bytes'?"),
        (
            "{path: a, lora: {rank: 8}}",
            "model.lora.rank: PEFT's LoraConfig has no such field",
        ),
        (
            "{path: a, lora: {r: 8.5}}",
            "model.lora.r: given 8.5, expected a whole number",
        ),
        (
            "{path: a, lora: {alpha: 8, lora_alpha: 8}}",
            "alpha and lora_alpha are one field",
        ),
    ],
)
def test_the_model_is_checked(problems, model, expected):
    assert any(
        expected in p for p in problems(SFT.replace("{path: some/model}", model))
    )


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (
            "generation: {temperature: 0}",
            "generation.temperature: given 0, expected more than 0",
        ),
        ("generation: {top_p: 1.1}", "generation.top_p: given 1.1, expected at most 1"),
        (
            "generation: {min_new_tokens: 5, max_new_tokens: 4}",
            "5 is more than max_new_tokens (4)",
        ),
        (
            "generation: {engine: transformers, vllm: {sleep: true}}",
            "generation.vllm: is read only where",
        ),
        ("generation: {vllm: {mode: server}}", "mode: server needs the server's URL"),
        (
            "generation: {vllm: {server: 'http://x'}}",
            "generation.vllm.server: is read only with",
        ),
        ("advantage: {name: group, scale: std}", ""),
    ],
)
def test_rollout_settings_are_checked(problems, write, added, expected):
    if not expected:
        assert recipe.load(write(GRPO + added)).config.advantage.options == {
            "scale": "std"
        }
    else:
        assert any(expected in p for p in problems(GRPO + added))


def test_advantages_beside_trls_own_loss_are_only_what_trl_has(problems):
    stock = GRPO.replace(
        "{name: grpo_clip, normalize: sequence, cliprange: 0.2}",
        "{name: trl, loss_type: dr_grpo}",
    )
    assert (
        "only {name: group, scale: …}"
        in problems(stock + "advantage: {name: group, eps: 1e-6}")[0]
    )
    none = stock.replace("loss: {name: trl, loss_type: dr_grpo}\n", "")
    assert "is read beside a loss" in problems(none + "advantage: {name: group}")[0]


def test_vllms_fields_beside_another_engine_are_refused(problems):
    text = GRPO.replace(
        "num_generations: 4", "vllm_importance_sampling_mode: token_mask"
    )
    (found,) = problems(text + "generation: {engine: transformers}")
    assert (
        "train.vllm_importance_sampling_mode: is read only with generation.engine: vllm"
        " or auto" in found
    )


def test_a_missing_method_names_the_methods(problems):
    assert "method: is missing; one of sft, grpo" in problems("name: x")[0]


@pytest.mark.parametrize(
    "method", ["", "method: grpoo", "method: [grpo]", "method: {a: b}"]
)
def test_without_a_method_the_rest_is_checked_all_the_same(problems, registry, method):
    text = f"""\
        name: x
        {method}
        model: {{pth: here}}
        rewards: {{drgrp: {{}}}}
        train: {{learning_rat: 1, num_generations: 4}}
    """
    found = problems(text, registry=registry)
    for words in (
        "method: ",
        "model.pth: there is no such key; did you mean 'path'?",
        "rewards.drgrp: there is no reward 'drgrp'; did you mean 'drgrpo'?",
        "train.learning_rat: TRL's configs have no such field; did you mean 'learning_",
    ):
        assert any(words in fault for fault in found), (words, found)
    assert not any("None" in fault for fault in found)


def test_local_paths_are_relative_to_the_file_that_states_them(
    write, tmp_path, monkeypatch
):
    write("{question}", "lib/prompt.txt")
    (tmp_path / "lib" / "model").mkdir()
    write(
        "model: {path: model}\ndata: {prompt: {file: prompt.txt}, train: {path:"
        " rows.jsonl}}\n",
        "lib/base.yaml",
    )
    child = write(
        "extends: lib/base.yaml\n" + SFT.replace("model: {path: some/model}\n", "")
    )
    monkeypatch.chdir("/")
    config = recipe.load(child).config
    assert config.model.path == str(tmp_path / "lib/model")
    assert config.data.prompt.file == str(tmp_path / "lib/prompt.txt")
    assert config.data.train.path == str(tmp_path / "lib/rows.jsonl")


def test_a_hub_id_stays_as_it_is(write):
    assert recipe.load(write(SFT)).config.model.path == "some/model"


def test_a_missing_prompt_file_is_named_with_the_nearest(problems, write):
    write("{question}", "prompt.txt")
    found = problems(
        SFT.replace("arithmetic}", "arithmetic}, prompt: {file: promt.txt}")
    )
    assert (
        "data.prompt.file: there is no file" in found[0]
        and "did you mean 'prompt.txt'?" in found[0]
    )


def test_a_prompt_is_one_of_its_three_forms(problems):
    found = problems(
        SFT.replace("arithmetic}", "arithmetic}, prompt: {file: a, template: b}")
    )
    assert (
        "data.prompt: expected a name, {file: PATH} or {template: TEXT}"
        in "\n".join(found)
    )


@pytest.fixture
def registry(tmp_path):
    kit = tmp_path / "kit"
    (kit / "rewards").mkdir(parents=True)
    (kit / "plugins").mkdir()
    (kit / "rewards" / "exact.py").write_text(
        "from alignkit import Reward, Score, hookimpl\n\ndef exact(response: str,"
        " truth: str, *, strict: bool = True, words: int) -> Score:\n    return"
        " Score(1.0)\n\n@hookimpl\ndef align_rewards():\n    yield Reward('exact',"
        " exact)\n"
    )
    (kit / "plugins" / "own.py").write_text(
        "from alignkit import DatasetSource, Loss, hookimpl\n\ndef own(batch, *,"
        " cliprange: float = 0.2):\n    return batch.logps\n\ndef rows(*, split: str,"
        " path: str | None, size: int = 3):\n    return []\n\n@hookimpl\ndef"
        " align_losses():\n    yield Loss('own', own, methods=('grpo',),"
        " normalize=('token',))\n\n@hookimpl\ndef align_datasets():\n    yield"
        " DatasetSource('own_rows', rows)\n"
    )
    return plugins.load_kit(kit)


def test_plugins_and_their_options_are_checked_with_positions(problems, registry):
    found = problems(
        """\
method: grpo
model: {path: x}
data: {train: {dataset: own_row, size: 5}, validation: {dataset: own_rows, size: five}, prompt: arithmetik}
rewards:
  exat: {}
  exact: {wieght: 2, strict: no}
loss: {name: own, normalize: sequence, cliprnge: 0.1}
evals: {arithmetic: {judge: firework}}
callbacks: [none]
""",
        registry=registry,
    )
    text = "\n".join(found)
    for part in (
        (
            "r.yaml:3:16: data.train.dataset: there is no dataset 'own_row'; did you"
            " mean 'own_rows'?"
        ),
        (
            "r.yaml:3:76: data.validation.size: option 'size' of dataset 'own_rows' is"
            " 'five'"
        ),
        (
            "r.yaml:3:89: data.prompt: there is no prompt 'arithmetik'; did you mean"
            " 'arithmetic'?"
        ),
        "r.yaml:5:3: rewards.exat: there is no reward 'exat'; did you mean 'exact'?",
        "r.yaml:6:11: rewards.exact.wieght: reward 'exact' has no option 'wieght'",
        "did you mean 'weight'?",
        "r.yaml:6:22: rewards.exact.strict: option 'strict' of reward 'exact' is 'no'",
        "r.yaml:6:3: rewards.exact.words: reward 'exact' needs the option 'words'",
        (
            "r.yaml:7:19: loss.normalize: loss 'own' cannot be normalised by sequence;"
            " expected one of token"
        ),
        (
            "r.yaml:7:40: loss.cliprnge: loss 'own' has no option 'cliprnge'; did you"
            " mean 'cliprange'?"
        ),
        (
            "r.yaml:8:22: evals.arithmetic.judge: there is no judge 'firework'; did you"
            " mean 'fireworks'?"
        ),
        "r.yaml:9:13: callbacks.0: there is no callback 'none'",
    ):
        assert part in text, part


def test_a_loss_of_another_method_is_refused(problems, registry):
    found = problems(SFT + "loss: {name: own}\n", registry=registry)
    assert found == ["r.yaml:4:8: loss.name: loss 'own' is for grpo, not for sft"]


def test_options_of_an_evals_own_dataset_are_checked(problems, registry):
    found = problems(
        SFT + "evals: {arithmetic: {data: {siez: 3}}}\n", registry=registry
    )
    assert found[0].startswith(
        "r.yaml:4:29: evals.arithmetic.data.siez: dataset 'arithmetic' has no option"
        " 'siez'"
    )


def test_named_plugins_lists_what_a_recipe_uses(write):
    named = {
        (each.kind, each.name)
        for each in recipe.named_plugins(recipe.load(write(GRPO)).resolved)
    }
    expected = {
        ("dataset", "arithmetic"),
        ("prompt", "arithmetic"),
        ("reward", "exact"),
        ("loss", "grpo_clip"),
    }
    assert named == expected | {("eval", "arithmetic")}


def test_loading_needs_no_heavy_package_and_is_fast(write):
    a, b = write(GRPO), write(GRPO.replace("seed: 7", "seed: 8"), "b.yaml")
    code = (
        f"import sys\nfrom alignkit import recipe\na, b = recipe.load({str(a)!r}),"
        f" recipe.load({str(b)!r})\nassert [d.key for d in recipe.differences(a, b)] == ['name',"
        " 'seed']\nheavy = {'torch', 'transformers', 'trl', 'peft', 'datasets'} &"
        " set(sys.modules)\nassert not heavy, heavy\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=Path(recipe.__file__).parents[2]
    )


def test_the_examples_of_the_guide_load(write):
    root = Path(__file__).parents[1]
    examples = re.findall(
        r"```yaml\n(.*?)```", (root / "docs" / "recipes.md").read_text(), re.DOTALL
    )
    child, overlay, pipeline, iterated = examples
    kit = [root / "recipes"]
    config = recipe.load(write(child, "child.yaml"), recipe_dirs=kit).config
    assert (config.train["learning_rate"], config.rewards["drgrpo"].options) == (
        3e-6,
        {"fast": False},
    )
    assert config.evals["math"].every is None
    laid = recipe.load(
        write(pipeline, "p.yaml"), overlays=[write(overlay, "o.yaml")], recipe_dirs=kit
    ).config
    assert [stage.train["max_steps"] for stage in laid.stages.values()] == [3, 3]
    assert {stage.evals["math"].limit for stage in laid.stages.values()} == {8}
    iterated = "extends: expert_iteration_math.yaml\n" + iterated
    assert (
        recipe.load(
            write(iterated, "ei.yaml"), recipe_dirs=kit
        ).config.expert_iteration.rollouts
        == 4
    )


@pytest.mark.parametrize("path", ["a" * 5000, '"\\0"', "~nobody-here/x"])
def test_a_path_that_cannot_be_is_refused_like_any_missing_one(problems, path):
    assert "extends: there is no file" in problems(f"extends: {path}\n")[0]
    found = problems(
        SFT.replace("some/model", path).replace(
            "arithmetic}", f"arithmetic}}, prompt: {{file: {path}}}"
        )
    )
    assert "data.prompt.file: there is no file" in found[0]
