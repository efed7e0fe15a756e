"""The bridge to lm-evaluation-harness: its own scores on a tiny model, task by task, and
what is refused.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from alignkit.kits.builtin.evals import _lm_tasks
from click.testing import CliRunner

from alignkit import kits, models, plugins
from alignkit.cli import cli, main
from alignkit.engines.base import Likelihood
from alignkit.engines.transformers import TransformersEngine
from alignkit.errors import InputError, MissingError
from alignkit.evaluate import EvalRequest, StoredResponses, evaluate, plan_eval
from alignkit.sampling import Sampling

lm_eval = pytest.importorskip(
    "lm_eval", reason="lm-eval is not installed: make install"
)

SIZES = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64}
ADD = [f"{a}+{b}=" for a in range(4) for b in range(3)]
IFEVAL = [
    ("Say no comma.", {"punctuation:no_comma": {}}),
    (
        "Say three words or more in small letters.",
        {
            "length_constraints:number_words": {"num_words": 1, "relation": "at least"},
            "change_case:english_lowercase": {},
        },
    ),
    ("Say x.", {"keywords:existence": {"keywords": ["x"]}}),
    ("Say it as JSON.", {"detectable_format:json_format": {}}),
]
MEAN = "{metric: %s, aggregation: mean, higher_is_better: true}"
GENERATED = """
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["Q", "\\n"], do_sample: false, max_gen_toks: 8}
"""
CHOICE = """
output_type: multiple_choice
test_split: test
doc_to_choice: c
doc_to_target: g
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of random weights and its folder."""
    build = SimpleNamespace(tokenizer="bytes", init_std=0.2, max_length=512, **SIZES)
    model, tokenizer = models.build(build, 0)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    models.save(model, tokenizer, folder)
    return TransformersEngine(model, tokenizer, name="tiny"), folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, tiny):
    """A folder of tasks on data that are made here."""
    folder = tmp_path_factory.mktemp("kit") / "tasks"
    folder.mkdir()

    def task(name, settings, rows, split="test"):
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = (
            f"dataset_path: json\ndataset_kwargs: {{data_files: {{{split}: {data}}}}}"
        )
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{files}\n{settings}\n")

    # right on every second question: what the model says
    said = tiny[0].generate(ADD, Sampling(temperature=0.0, max_new_tokens=8))
    rows = [
        {"q": q, "a": one.text.partition("Q")[0] if n % 2 else "?"}
        for n, (q, (one,)) in enumerate(zip(ADD, said, strict=True))
    ]
    strict = "{name: strict, filter: [{function: regex, regex_pattern: '([a-z])'}, {function: take_first}]}"
    loose = "{name: loose, filter: [{function: take_first}]}"
    exact = f"metric_list: [{MEAN % 'exact_match'}]"
    task("said", f"{GENERATED}\n{exact}\nfilter_list: [{loose}, {strict}]", rows)
    task("shown", f"{GENERATED}\n{exact}\nnum_fewshot: 2\nfewshot_split: test", rows)

    brier = "{metric: brier_score, aggregation: brier_score, higher_is_better: false}"
    several = f"metric_list: [{MEAN % 'acc'}, {MEAN % 'acc_norm'}, {brier}]"
    choices = [
        {"q": f"Is it {n}?", "c": [str(n), "some words", "x" * n], "g": n % 3}
        for n in range(1, 13)
    ]
    asked = 'doc_to_text: "Q: {{q}}\\nA: "'
    task("choice", f"{CHOICE}\n{asked}\n{several}\ntag: chosen\n", choices)
    mutual = f"metric_list: [{MEAN % 'acc'}, {MEAN % 'acc_mutual_info'}]"
    task("informed", f"{CHOICE}\n{asked}\n{mutual}\ntag: chosen", choices[:5])
    gaps = [
        {"c": [f"{n} cats", f"a dog of {n}"], "g": n % 2, "end": "ran off."}
        for n in range(8)
    ]
    ends = f"{CHOICE.replace('doc_to_target: g', 'doc_to_target: end')}\ndoc_to_text: g"
    task("gaps", f"{ends}\nmetric_list: [{MEAN % 'acc'}]", gaps)
    blank = f"{CHOICE}\ndoc_to_text: ''\ntarget_delimiter: ''"
    task("blank", f"{blank}\nmetric_list: [{MEAN % 'acc'}]", gaps)
    perplexity = (
        "{metric: perplexity, aggregation: perplexity, higher_is_better: false}"
    )
    last = "output_type: loglikelihood\ntest_split: test\ndoc_to_text: q"
    last += f"\ndoc_to_target: a\nmetric_list: [{perplexity}, {MEAN % 'acc'}]"
    greedy = [
        {"q": q, "a": one.text[:1] if n % 3 else "#"}
        for n, (q, (one,)) in enumerate(zip(ADD, said, strict=True))
    ]
    task("last", last, [row for row in greedy if row["a"].isascii()])

    def group(name, members, weighted):
        how = f"[{{metric: acc, weight_by_size: {weighted}}}]"
        text = f"group: {name}\ntask: [{members}]\naggregate_metric_list: {how}\n"
        (folder / f"{name}.yaml").write_text(text)

    group("both", "choice, informed", "true")
    group("evenly", "choice, informed", "false")
    group("mixed", "choice, said", "true")
    group("uneven", "said, sampled", "true")
    drawn = GENERATED.replace("do_sample: false", "do_sample: true, temperature: 0.5")
    task("sampled", f"{drawn}\n{exact}", rows)
    for name, more in {
        "code": "unsafe_code: true",
        "votes": "repeats: 4",
        "beams": "generation_kwargs: {until: [], num_beams: 4}",
    }.items():
        task(name, f"{GENERATED}\n{exact}\n{more}", rows)
    task("texts", "output_type: loglikelihood_rolling\ntest_split: test", rows)
    task(
        "broken",
        "output_type: generate_until\ntest_split: test\ndoc_to_text: '{{'",
        rows,
    )

    published = Path(lm_eval.__file__).parent / "tasks/ifeval/ifeval.yaml"
    instructions = [
        {"key": n, "prompt": prompt, "instruction_id_list": [*asked]}
        | {"kwargs": list(asked.values())}
        for n, (prompt, asked) in enumerate(IFEVAL)
    ]
    kwargs = "{until: [], do_sample: false, temperature: 0.0, max_gen_toks: 24}"
    changes = f"include: {published}\ngeneration_kwargs: {kwargs}"
    task("ifeval", changes, instructions, split="train")
    return folder


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture(scope="module")
def planned(registry, tasks):
    def plan(name, responses=None, **given):
        data = {"path": str(tasks), **given.pop("data", {})}
        request = EvalRequest.of(registry.get("eval", f"lm:{name}"), data=data, **given)
        return plan_eval(request, registry, responses)

    return plan


@pytest.fixture(scope="module")
def theirs(tiny, tasks):
    """lm-eval's own results, with its own model class."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(tiny[1]), device="cpu", batch_size=4)

    def evaluated(*names, **given):
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=list(names),
            task_manager=_lm_tasks._manager(str(tasks)),
            bootstrap_iters=0,
            **given,
        )
        return {
            name: {
                key: pytest.approx(value, rel=1e-5, abs=1e-6)
                for key, value in metrics.items()
                if "," in key and "_stderr," not in key
            }
            for name, metrics in found["results"].items()
        }

    return evaluated


ALL = ["said", "shown", "choice", "informed", "gaps", "blank", "last", "ifeval"]


def test_every_kind_of_task_has_lm_evals_own_score(planned, theirs, tiny, tmp_path):
    expected = theirs(*ALL)
    for name in ALL:
        found = evaluate(planned(name), tiny[0], tmp_path)
        assert found["reported"] == expected[name], name
        assert found["metrics"].items() >= found["reported"].items()
        assert "error" not in found["status"]
    # none of these is all right or all wrong, so that equality says something
    assert 0 < expected["said"]["exact_match,loose"].expected < 1
    assert 0 < expected["choice"]["acc,none"].expected < 1
    assert 0 < expected["last"]["acc,none"].expected < 1
    assert 0 < expected["ifeval"]["inst_level_strict_acc,none"].expected < 1


@pytest.mark.parametrize("name", ["both", "evenly"])
def test_a_group_has_lm_evals_own_aggregate(planned, theirs, tiny, tmp_path, name):
    expected = theirs(name)
    found = evaluate(planned(name), tiny[0], tmp_path)
    assert found["reported"] == expected[name] and found["n"] == 17
    members = {task: expected[task] for task in ("choice", "informed")}
    assert found["breakdown"]["by_task"] == members


def test_stored_responses_are_scored_as_lm_eval_does(planned, theirs, tiny, tmp_path):
    expected = theirs("said", "choice")
    for name in ("said", "choice"):
        found = evaluate(planned(name), tiny[0], tmp_path / "a")
        file = f"{found['folder']}/samples.jsonl"
        again = planned(name, StoredResponses.read(file))
        stored = evaluate(again, None, tmp_path / "b")
        assert stored["reported"] == expected[name]


def test_examples_and_chats_are_put_as_lm_eval_puts_them(
    planned, theirs, tiny, tmp_path
):
    expected = theirs("shown", num_fewshot=3)["shown"]
    found = evaluate(planned("shown", data={"shots": 3}), tiny[0], tmp_path)
    assert found["reported"] == expected
    assert found["provenance"]["data"]["shots"] == 3
    prompt = planned("shown").samples[0].prompt
    given = {"chat": True, "system": "Add.", "multiturn": True}
    messages = planned("shown", data=given).samples[0].prompt
    assert [one["role"] for one in messages] == [
        *("system", "user", "assistant", "user", "assistant", "user")
    ]
    assert messages[-1]["content"] in prompt


def test_another_metric_can_be_the_value(planned, tiny, tmp_path):
    options = {"metric": "acc_norm"}
    found = evaluate(planned("choice", options=options), tiny[0], tmp_path)
    assert found["value"] == found["reported"]["acc_norm,none"]
    with pytest.raises(InputError, match="acc_nrm"):
        planned("choice", options={"metric": "acc_nrm"})


def test_a_killed_call_goes_on_and_other_examples_are_other_settings(
    planned, tiny, tmp_path
):
    found = evaluate(planned("shown"), tiny[0], tmp_path)
    file = Path(found["folder"]) / "samples.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    said = []
    again = evaluate(planned("shown"), tiny[0], tmp_path, announce=said.append)
    assert (
        again["value"] == found["value"] and "5 of 12 completions are kept" in said[0]
    )
    with pytest.raises(InputError, match="shots not stated there, 1 now"):
        evaluate(planned("shown", data={"shots": 1}), tiny[0], tmp_path)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("ifevl", {}, "did you mean 'lm:ifeval'"),
        ("nothing", {}, "read there: beams, blank, both,"),
        ("code", {}, "runs code that the model wrote"),
        ("votes", {}, "draws each question 4 times"),
        ("texts", {}, "asks for the likelihood of whole texts"),
        ("beams", {}, "generates with {'num_beams': 4}"),
        ("broken", {}, "cannot be loaded: TemplateSyntaxError"),
        ("mixed", {}, "name its tasks: lm:choice lm:said"),
        ("uneven", {}, "answers said/0 and sampled/0 in two ways"),
        ("ifeval", {"data": {"shots": 2}}, "shows no examples by its own settings"),
        ("said", {"data": {"shots": -1}}, "expected at least 0"),
        ("said", {"data": {"system": "x"}}, "read with chat=true only"),
        ("said", {"data": {"split": "x"}}, "which split"),
        ("said", {"data": {"shot": 2}}, "no option 'shot'; did you mean 'shots'"),
        ("said", {"prompt": "chat"}, "makes its prompts itself"),
        ("choice", {"samples": 4}, "compares likelihoods, nothing is sampled"),
        ("a/b", {}, "names no eval"),
        ("", {}, "names no eval"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_model_is_loaded(
    planned, name, given, said
):
    with pytest.raises(InputError) as refused:
        planned(name, **given)
    assert said in str(refused.value)


def test_data_that_are_not_here_are_missing(planned, registry):
    with pytest.raises(MissingError, match="name local ones"):
        planned("arc_easy")
    with pytest.raises(MissingError, match="no folder of task YAMLs"):
        planned("said", data={"path": "nowhere"})


def test_likelihoods_are_asked_of_no_chat_server(tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    server = ("--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--api", "chat")
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "lm:choice", "--data", str(tasks), *server])
    said = " ".join(capsys.readouterr().err.split())
    assert stopped.value.code == 2 and "lm:choice compares log-likelihoods" in said


def test_a_server_that_does_not_say_what_is_likeliest_is_told(planned, tmp_path):
    class Silent:
        name, model = "openai", "m"

        def loglikelihoods(self, requests):
            return [[Likelihood(-1.0, None)] * len(some) for _, some in requests]

    assert evaluate(planned("choice"), Silent(), tmp_path)["n"] == 12
    with pytest.raises(InputError, match="which this server does not say"):
        evaluate(planned("last"), Silent(), tmp_path)


def test_a_changed_task_scores_what_is_stored_anew(registry, tasks, tiny, tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    text = (tasks / "said.yaml").read_text()
    code = "def process_results(doc, results):\n    return {'exact_match': VALUE}\n"
    text = text.partition("filter_list")[0]
    text += "process_results: !function scores.process_results\n"

    def score(value):
        (folder / "said.yaml").write_text(text)
        (folder / "scores.py").write_text(code.replace("VALUE", value))
        _lm_tasks._manager.cache_clear()
        sys.modules.pop("scores", None)
        request = EvalRequest.of(
            registry.get("eval", "lm:said"), data={"path": str(folder)}
        )
        said = []
        planned = plan_eval(request, registry)
        found = evaluate(planned, tiny[0], tmp_path / "out", announce=said.append)
        return found, " ".join(said)

    first, _ = score("1.0")
    again, kept = score("0.25")
    assert (first["value"], again["value"]) == (1.0, 0.25)
    assert (
        "12 of 12 completions are kept" in kept and "scores are computed anew" in kept
    )
    sides = [one["provenance"]["grader"]["by_data"] for one in (first, again)]
    assert sides[0] != sides[1] and sides[0][0].startswith("said ")


RECIPE = """
name: bridged
method: sft
model: {path: MODEL}
data: {train: {dataset: arithmetic, size: 32}, prompt: arithmetic}
train: {max_steps: 1, per_device_train_batch_size: 4, save_strategy: "no"}
evals:
  lm:choice: {before: true, data: {path: TASKS}}
  lm:shown: {data: {path: TASKS, shots: 1}, limit: 4, sampling: {max_new_tokens: 4}}
"""


def test_tasks_are_evals_of_a_training(tasks, tiny, tmp_path):
    text = RECIPE.replace("MODEL", str(tiny[1])).replace("TASKS", "../tasks")
    recipe = tasks.parent / "recipes/bridged.yaml"
    recipe.parent.mkdir()
    recipe.write_text(text)
    run = ["run", str(recipe), "--folder", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, run)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert sum("eval/lm:choice/acc_norm,none" in row for row in rows) == 2
    assert sum("eval/lm:shown/exact_match,none" in row for row in rows) == 1
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert "rows of evals.lm:shown.data" in manifest["identity"]["parts"]

    recipe.write_text(text.replace("shots: 1", "shot: 1"))
    refused = CliRunner().invoke(cli, ["plan", str(recipe)])
    assert "evals.lm:shown.data.shot" in str(refused.exception)
    assert "did you mean 'shots'?" in str(refused.exception)


@pytest.mark.parametrize(
    "entry",
    [
        "lm:choice: {data: {path: TASKS}}",
        "mine: {data: {dataset: lm_eval, task: choice, path: TASKS}, reward: math}",
    ],
)
def test_a_recipe_runs_no_code_of_a_folder_that_lies_in_no_kit(tasks, tmp_path, entry):
    entry = entry.replace("TASKS", str(tasks))
    text = RECIPE.partition("evals:")[0] + f"evals: {{{entry}}}\n"
    recipe = tmp_path / "stranger.yaml"
    recipe.write_text(text.replace("MODEL", "nowhere"))
    refused = CliRunner().invoke(cli, ["plan", str(recipe)])
    assert "may hold code that runs, so in a recipe it must lie in a kit" in str(
        refused.exception
    )
    asked = CliRunner().invoke(cli, ["plan", str(recipe), "--kit", str(tasks.parent)])
    assert "may hold code" not in str(asked.exception)


def test_without_the_package_it_is_said_how_to_have_it(planned, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    monkeypatch.setattr(_lm_tasks, "_manager", _lm_tasks._manager.__wrapped__)
    with pytest.raises(MissingError, match="pip install 'alignkit"):
        planned("choice")
