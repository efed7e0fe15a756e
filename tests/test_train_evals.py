"""Evals of a run on the model in training, and the best model."""

import json
from pathlib import Path

from click.testing import CliRunner, Result
from safetensors.torch import load_file
from servers import OpenAIServer

from alignkit.cli import cli

RECIPE = """
method: sft
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 32}, prompt: arithmetic}
train: {max_steps: 4, per_device_train_batch_size: 4, learning_rate: 1.0e-2, save_strategy: "no"}
evals: {arithmetic: {before: true, every: 1, after: true, limit: 8, sampling: {temperature: 1.0, max_new_tokens: 16}}}
"""


def run(folder: Path, best: str) -> Result:
    (folder / "watched.yaml").write_text(RECIPE + f"best: {best}\n")
    return CliRunner().invoke(
        cli, ["run", str(folder / "watched.yaml"), "--folder", str(folder / "run")]
    )


def test_the_best_model_is_the_one_of_the_best_logged_value(tmp_path: Path):
    metric = "eval/arithmetic/mean_tokens"
    assert run(tmp_path, f"{{metric: {metric}, mode: min}}").exit_code == 0
    rows = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    values = {row["step"]: row[metric] for row in rows if metric in row}
    best = json.loads((tmp_path / "run/manifest.json").read_text())["best"]
    assert (
        best["value"]
        == values[best["step"]]
        == min(values.values())
        < max(values.values())
    )
    kept, last = (
        load_file(tmp_path / "run" / name / "model.safetensors")
        for name in ("best", "model")
    )
    assert kept.keys() == last.keys()
    assert all(bool((kept[key] == last[key]).all()) for key in kept) == (
        best["step"] == 4
    )
    assert not (tmp_path / "run/best.new").exists()


def test_a_best_metric_that_its_eval_does_not_give_stops_the_run_before_training(
    tmp_path: Path,
):
    result = run(tmp_path, "{metric: eval/arithmetic/acc}")
    assert result.exit_code != 0
    said = str(result.exception)
    assert (
        "best.metric is 'eval/arithmetic/acc'" in said
        and "eval/arithmetic/accuracy" in said
    )
    assert "train/loss" not in (tmp_path / "run/metrics.jsonl").read_text()


JUDGED = RECIPE.replace("evals: {arithmetic:", "evals: {graded:").replace(
    "max_steps: 4", "max_steps: 1"
)
KIT = """
from alignkit import Eval, JudgeTask, Sample, Score, hookimpl


def samples(rows, render):
    for number, row in enumerate(rows):
        yield Sample(str(number), render(row), row["truth"], reasoning="keep")


def conversations(sample, response):
    return [[{"role": "user", "content": f"{sample.id}: {response}"}]]


def parse(sample, answers):
    return Score(float(answers[0] == "yes"))


@hookimpl
def align_evals():
    yield Eval(
        name="graded",
        samples=samples,
        judge=JudgeTask(conversations=conversations, parse=parse),
        data={"dataset": "arithmetic", "split": "test", "size": 16},
        prompt="arithmetic",
    )
"""


def test_a_judged_eval_asks_its_judge_about_the_model_in_training(
    tmp_path: Path, monkeypatch
):
    def answer(body):
        asked = body["messages"][0]["content"]
        return "yes" if int(asked.partition(":")[0]) % 2 else "no"

    (tmp_path / "kit" / "evals").mkdir(parents=True)
    (tmp_path / "kit" / "evals" / "graded.py").write_text(KIT)
    judged = JUDGED.replace("limit: 8", "judge: 'house:j', samples: 1")
    (tmp_path / "judged.yaml").write_text(judged)
    command = ["run", str(tmp_path / "judged.yaml"), "--kit", str(tmp_path / "kit")]
    with OpenAIServer(answer) as server:
        (tmp_path / "kit" / "plugins").mkdir()
        (tmp_path / "kit" / "plugins" / "house.py").write_text(
            "from alignkit import Judge, hookimpl\n\n\n@hookimpl\ndef align_judges():\n"
            f"    yield Judge(name='house', model='j', base_url={server.url!r})\n"
        )
        done = CliRunner().invoke(cli, [*command, "--folder", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    rows = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    values = {
        r["step"]: r["eval/graded/accuracy"]
        for r in rows
        if "eval/graded/accuracy" in r
    }
    assert values == {0: 0.5, 1: 0.5}
    assert len(server.served) <= 32
