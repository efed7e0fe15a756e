"""Objectives in the trainers: what is refused, what stops a run, what is measured and
recorded.
"""

import math

import pytest

from alignkit import Advantage, InputError, Loss, WorkError, kits, plugins
from alignkit.errors import PluginError

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture(scope="module")
def laboratory():
    from alignkit.conformance import laboratory as tiny

    with tiny.Laboratory() as made:
        yield made


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    from trl import DPOConfig, GRPOConfig, RLOOConfig, SFTConfig

    kinds = {"sft": SFTConfig, "grpo": GRPOConfig, "rloo": RLOOConfig, "dpo": DPOConfig}
    folder = str(tmp_path_factory.mktemp("out"))

    def make(method, **fields):
        base = {
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "report_to": [],
        }
        return kinds[method](folder, **base, **fields)

    return make


def objective(function, normalize=("sequence",), methods=("grpo", "sft"), **more):
    from alignkit.train.objective import Objective

    return Objective(Loss("mine", function, methods, normalize=normalize), **more)


def right(batch):
    return -batch.advantages.unsqueeze(1) * batch.logps


# -- refused before anything runs ------------------------------------------------------


def test_a_normalisation_the_loss_cannot_take_is_refused(registry):
    from alignkit.train.objective import Objective

    with pytest.raises(
        InputError,
        match=r"loss 'dpo' takes no `normalize`: it returns one value per sequence",
    ):
        Objective(registry.get("loss", "dpo").value, normalize="token")
    with pytest.raises(
        InputError,
        match=r"takes one of sequence; got 'token' \(.*test_train_losses.py:\d+\)",
    ):
        Objective(Loss("mine", right, ("grpo",), ("sequence",)), normalize="token")


@pytest.mark.parametrize(
    ("normalize", "constant"),
    [("sequence", 3.0), ("constant", 0.0), ("constant", math.inf)],
)
def test_a_constant_without_use_or_sense_is_refused(normalize, constant):
    with pytest.raises(InputError, match=r"loss\.constant"):
        objective(right, normalize=(normalize,), constant=constant)


def test_the_constant_is_the_longest_completion_unless_given(configs):
    bare = objective(right, normalize=("constant",))
    assert (
        bare.settled("grpo", configs("grpo", max_completion_length=77)).constant == 77
    )
    assert bare.settled("sft", configs("sft")).constant == 1


# -- a loss that is wrong --------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (
            lambda batch: right(batch).sum(1),
            r"returned shape \(3,\); expected one value per token, shape \(3, 5\)",
        ),
        (
            lambda batch: right(batch).sum(),
            r"returned shape \(\); expected one value per token",
        ),
        (
            lambda batch: 1.0,
            r"returned float; expected one value per token, shape \(3, 5\)",
        ),
        (
            lambda batch: right(batch).detach(),
            "returned a loss without gradient; expected one value per token",
        ),
        (lambda batch: batch.mask, r"returned torch\.bool; expected floating point"),
        (
            lambda batch: (right(batch), right(batch)),
            "returned Tensor for its metrics; expected a map by name",
        ),
        (
            lambda batch: (right(batch), {}, {}),
            "returned tuple; expected one value per token",
        ),
    ],
)
def test_a_loss_of_the_wrong_form_is_named_with_its_file_and_shapes(function, text):
    from alignkit import PolicyBatch

    logps = torch.zeros(3, 5, requires_grad=True)
    batch = PolicyBatch(
        logps,
        logps.detach(),
        torch.ones(3, 5, dtype=torch.bool),
        torch.ones(3),
        torch.ones(3),
    )
    with pytest.raises(
        PluginError, match=rf"loss 'mine' {text}.*test_train_losses\.py:\d+"
    ):
        objective(function)(batch)


def not_a_number(batch):
    return right(batch) * math.nan


def infinite_slope(batch):
    return right(batch) + (batch.logps - batch.logps.detach()).sqrt()


@pytest.mark.parametrize(
    ("function", "what"), [(not_a_number, "loss"), (infinite_slope, "gradient")]
)
def test_a_loss_that_is_not_finite_stops_before_the_optimizer_moves(
    laboratory, function, what
):
    from alignkit.conformance import laboratory as tiny

    with pytest.raises(
        WorkError,
        match=rf"loss 'mine' gave \d+ {what} values that are not finite at step 1",
    ):
        laboratory.gradients("grpo", objective(function), tiny.WHOLE)
    trainer, catch = laboratory._trainers["grpo", str(tiny.WHOLE)]
    assert trainer.state.global_step == 0 and not catch.steps


def test_a_loss_that_ignores_the_policy_is_named(laboratory):
    from alignkit.conformance import laboratory as tiny

    def apart(batch):
        return torch.ones_like(batch.logps, requires_grad=True) * 2

    with pytest.raises(
        PluginError, match="loss 'mine' does not depend on the log-probabilities"
    ):
        laboratory.gradients("grpo", objective(apart), tiny.WHOLE)


def test_a_model_that_diverged_is_not_blamed_on_the_loss(laboratory):
    from alignkit.conformance import laboratory as tiny

    laboratory.gradients("grpo", objective(right), tiny.WHOLE)
    trainer, _ = laboratory._trainers["grpo", str(tiny.WHOLE)]
    weight = next(trainer.model.parameters())
    kept = weight.detach().clone()
    weight.data.fill_(math.nan)
    try:
        with pytest.raises(
            WorkError, match="log-probabilities of the model are not finite"
        ):
            laboratory.gradients("grpo", objective(right), tiny.WHOLE)
    finally:
        weight.data.copy_(kept)


def test_a_seam_that_trl_no_longer_calls_stops_the_run(laboratory, monkeypatch):
    import trl

    from alignkit.conformance import laboratory as tiny
    from alignkit.train import policy

    laboratory.gradients("grpo", objective(right), tiny.WHOLE)
    own = trl.GRPOTrainer._compute_loss
    monkeypatch.setattr(
        policy.AlignGRPOTrainer,
        "compute_loss",
        lambda self, m, i, **_: own(self, m, i),
        raising=False,
    )
    with pytest.raises(
        WorkError, match=rf"TRL {trl.__version__} no longer calls the method"
    ):
        laboratory.gradients("grpo", objective(right), tiny.WHOLE)


def test_an_advantage_of_the_wrong_shape_or_value_is_named():
    rewards = torch.tensor([1.0, 0.0, math.nan, 1.0])
    short = objective(
        right, advantage=Advantage("adv", lambda rewards, group_size: rewards[:2])
    )
    with pytest.raises(
        PluginError,
        match=r"advantage 'adv' .*returned \(2,\); expected .* shape \(4,\)",
    ):
        short.advantages(rewards, 2)
    spoilt = objective(
        right,
        advantage=Advantage(
            "adv", lambda rewards, group_size: rewards - rewards.mean()
        ),
    )
    with pytest.raises(
        WorkError, match="3 values of 4 that are not finite; 1 rewards were NaN"
    ):
        spoilt.advantages(rewards, 2)
    rooted = objective(
        right, advantage=Advantage("adv", lambda r, size: r.sqrt(), nonnegative=True)
    )
    with pytest.raises(WorkError, match=r"no rewards below 0; got -0\.5"):
        rooted.advantages(torch.tensor([1.0, math.nan, -0.5, 0.0]), 2)


# -- measured and recorded -------------------------------------------------------------


def test_metrics_average_over_the_response_tokens_of_the_whole_step(
    laboratory, registry
):
    """The clip fraction, ratio and entropy of the cut step are those of its sequences
    taken together.
    """
    from alignkit.conformance import definition
    from alignkit.conformance import laboratory as tiny
    from alignkit.train.objective import Objective

    clip = Objective(
        registry.get("loss", "grpo_clip").value, {"cliprange": 0.2}, "token"
    )
    laboratory.gradients("grpo", clip, tiny.HARSH)
    trainer, _ = laboratory._trainers["grpo", str(tiny.HARSH)]
    logged = trainer.state.log_history[-1]
    net = tiny.model(laboratory.tokenizer)
    ratios, entropies, clipped = [], [], []
    for row in laboratory.rows:
        if not row.trained:
            continue
        batch = definition.row_batch(net, row, "grpo")
        for t in range(len(row.response)):
            ratio = math.exp((batch.logps - batch.old_logps)[0, t].item())
            ratios.append(ratio)
            entropies.append(batch.entropies[0, t].item())
            clipped.append(
                (ratio > 1.2 and row.advantage > 0)
                or (ratio < 0.8 and row.advantage < 0)
            )
    assert 0 < sum(clipped) < len(clipped)
    assert logged["ratio"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-5)
    assert logged["entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert logged["clip_fraction"] == pytest.approx(
        sum(clipped) / len(clipped), rel=1e-5
    )
    assert logged["seconds/forward_backward"] > 0 and logged["seconds/generation"] >= 0


def test_a_metric_of_another_shape_is_refused(laboratory):
    from alignkit.conformance import laboratory as tiny

    with pytest.raises(
        PluginError,
        match=(
            r"the metric 'odd' of shape \(2, 2\); expected a number, \(8,\) or \(8, 9\)"
        ),
    ):
        laboratory.gradients(
            "grpo",
            objective(lambda b: (right(b), {"odd": torch.zeros(2, 2)})),
            tiny.WHOLE,
        )


def test_effective_settings_are_those_of_the_first_step(laboratory, registry):
    from alignkit.conformance import laboratory as tiny
    from alignkit.proofs.settings import compare
    from alignkit.train.objective import Objective

    clip = Objective(registry.get("loss", "grpo_clip").value, {}, "constant")
    with tiny.Laboratory() as own:
        own.gradients("grpo", clip, tiny.CUTS[0])
        trainer, _ = own._trainers["grpo", str(tiny.CUTS[0])]
        seen = trainer.effective_settings()
    expected = {
        "method": "grpo",
        "loss.name": "grpo_clip",
        "loss.normalize": "constant",
        "loss.constant": 16.0,
        "loss.cliprange": 0.2,
        "train.gradient_accumulation_steps": 4,
        "train.per_device_train_batch_size": 2,
        "train.num_generations": 4,
        "generation.engine": "transformers",
        "generation.temperature": 1.0,
        "generation.min_new_tokens": 0,
        "generation.max_new_tokens": 16,
        "generation.stop": [],
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert not compare({**expected, "loss.options": None}, seen).fault
    fault = compare({"generation.temperature": 0.7}, seen).fault
    assert "generation.temperature: asked for 0.7, but 1.0 was in force" in fault


@pytest.mark.parametrize(
    ("method", "fields", "asked"),
    [
        ("sft", {"loss_type": "dft"}, {"loss.loss_type": "dft"}),
        (
            "dpo",
            {"loss_type": "hinge", "beta": 0.2},
            {"loss.loss_type": "hinge", "train.beta": 0.2},
        ),
        (
            "grpo",
            {"loss_type": "bnpo", "epsilon": 0.3},
            {"loss.loss_type": "bnpo", "train.epsilon": 0.3},
        ),
        (
            "rloo",
            {"epsilon": 0.3},
            {"train.epsilon": 0.3, "generation.top_k": 0, "generation.top_p": 1.0},
        ),
    ],
)
def test_settings_of_trls_own_losses_are_observed(laboratory, method, fields, asked):
    from alignkit.conformance import laboratory as tiny
    from alignkit.proofs.settings import compare

    trainer, _ = laboratory._make(method, None, tiny.Cut(8, 1, fields))
    trainer.train()
    seen = trainer.effective_settings()
    assert not compare({"loss.name": "trl", **asked}, seen).fault
    for key in asked:
        assert key in compare({key: "other"}, seen).fault


# -- generation ------------------------------------------------------------------------


class Generating:
    """A policy trainer that really generates, with the stop string `</answer>`."""

    def __init__(self, method, tmp_path, objective, reward, **fields):
        from datasets import Dataset
        from trl import GRPOConfig, RLOOConfig

        from alignkit import models
        from alignkit.conformance import laboratory as tiny
        from alignkit.train.policy import AlignGRPOTrainer, AlignRLOOTrainer

        self.tokenizer = models.build_tokenizer("digits")
        config, kind = {
            "grpo": (GRPOConfig, AlignGRPOTrainer),
            "rloo": (RLOOConfig, AlignRLOOTrainer),
        }[method]
        args = config(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=24,
            max_steps=1,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            beta=0.0,
            generation_kwargs={"stop_strings": ["</answer>"]},
            **fields,
        )
        self.trainer = kind(
            model=tiny.model(self.tokenizer).float(),
            args=args,
            reward_funcs=reward,
            train_dataset=Dataset.from_list(
                [{"prompt": prompt} for prompt in tiny.PROMPTS]
            ),
            processing_class=self.tokenizer,
            objective=objective,
        )


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_stop_string_ends_a_response_and_is_kept(tmp_path, registry, method):
    from alignkit.train.objective import Objective

    seen = []

    def reward(prompts, completions, completion_ids, log_extra, **_):
        seen.extend(zip(completions, completion_ids, strict=True))
        log_extra(
            "status", ["ok" if "</answer>" in text else "wrong" for text in completions]
        )
        return [-1.0] * len(completions)

    group = registry.get("advantage", "group").value
    made = Generating(
        method,
        tmp_path,
        Objective(registry.get("loss", "grpo_clip").value, advantage=group),
        reward,
    )
    torch.manual_seed(0)
    made.trainer.train()
    ended = [ids for text, ids in seen if "</answer>" in text]
    assert ended and len(ended) < len(seen)
    for text, ids in seen:
        assert len(ids) <= 24
        if "</answer>" in text:
            assert text.endswith("</answer>") and text.count("</answer>") == 1
            assert made.tokenizer.decode(ids[-1:]) == "</answer>"
    metrics = made.trainer.state.log_history[0]
    eos = made.tokenizer.eos_token_id
    cut = [ids for text, ids in seen if "</answer>" not in text and ids[-1] != eos]
    assert metrics["completions/clipped_ratio"] == pytest.approx(len(cut) / len(seen))
    lengths = [len(ids) for ids in ended]
    assert metrics["completions/mean_length_correct"] == pytest.approx(
        sum(lengths) / len(lengths)
    )
    assert made.trainer.effective_settings()["generation.stop"] == ["</answer>"]


def test_plugin_advantages_and_raw_rewards_reach_the_loss_row_by_row(tmp_path):
    """Weighted rewards by group; a completion that nothing scores has advantage 0; the
    log shows the plugin's.
    """

    def first(prompts, completions, **_):
        return [None if index == 2 else float(index) for index in range(8)]

    def second(prompts, completions, **_):
        return [None if index == 2 else 1.0 for index in range(8)]

    def centred(rewards, group_size):
        groups = rewards.view(-1, group_size)
        return (groups - groups.nanmean(1, keepdim=True)).view(-1)

    batches = []

    def watch(batch):
        batches.append(batch)
        return -batch.advantages.unsqueeze(1) * batch.logps

    plan = objective(watch, advantage=Advantage("centred", centred))
    made = Generating(
        "grpo", tmp_path, plan, [first, second], reward_weights=[2.0, 10.0]
    )
    made.trainer.train()
    rewards = [10.0 + 2 * i for i in range(8)]
    means = [(rewards[0] + rewards[1] + rewards[3]) / 3] * 4 + [
        sum(rewards[4:]) / 4
    ] * 4
    advantages = [r - m for r, m in zip(rewards, means, strict=True)]
    rewards[2] = advantages[2] = 0.0
    order = batches[0].rewards.argsort()  # TRL shuffles the rows
    assert batches[0].rewards[order].tolist() == pytest.approx(sorted(rewards))
    expected = [
        advantage for _, advantage in sorted(zip(rewards, advantages, strict=True))
    ]
    assert batches[0].advantages[order].tolist() == pytest.approx(expected, abs=1e-6)
    assert list(made.trainer._logs["advantages"]) == pytest.approx(advantages)


# -- evaluation ------------------------------------------------------------------------


def test_the_validation_loss_is_that_of_the_plugin(laboratory, registry):
    from alignkit.conformance import definition
    from alignkit.conformance import laboratory as tiny
    from alignkit.train.objective import Objective

    plan = Objective(registry.get("loss", "sft").value, normalize="sequence")
    laboratory.gradients("sft", plan, tiny.WHOLE)
    trainer, _ = laboratory._trainers["sft", str(tiny.WHOLE)]
    metrics = trainer.evaluate(trainer.train_dataset)
    net = tiny.model(laboratory.tokenizer)
    means = [
        -definition.row_log_probs(net, row)[0].mean().item() for row in laboratory.rows
    ]
    assert metrics["eval_loss"] == pytest.approx(sum(means) / len(means), rel=1e-5)
    assert metrics["eval_entropy"] > 0


def test_rollouts_are_evaluated_with_the_plugin(laboratory, registry):
    from alignkit.conformance import definition
    from alignkit.conformance import laboratory as tiny
    from alignkit.train.objective import Objective

    plan = Objective(
        registry.get("loss", "reinforce_with_baseline").value, normalize="token"
    )
    laboratory.gradients("grpo", plan, tiny.WHOLE)
    trainer, _ = laboratory._trainers["grpo", str(tiny.WHOLE)]
    metrics = trainer.evaluate(trainer.train_dataset)
    net = tiny.model(laboratory.tokenizer)
    rows = [row for row in laboratory.rows if row.trained]
    total = sum(
        -row.advantage * definition.row_log_probs(net, row)[0].sum().item()
        for row in rows
    )
    assert metrics["eval_loss"] == pytest.approx(
        total / sum(len(row.response) for row in rows), rel=1e-4
    )


def test_the_validation_of_preferences_counts_pairs_by_the_policys_log_probs(
    laboratory, registry
):
    from alignkit.conformance import definition
    from alignkit.conformance import laboratory as tiny
    from alignkit.train.objective import Objective

    plan = Objective(registry.get("loss", "dpo").value, {"beta": 0.3})
    laboratory.gradients("dpo", plan, tiny.WHOLE)
    trainer, _ = laboratory._trainers["dpo", str(tiny.WHOLE)]
    metrics = trainer.evaluate(trainer.train_dataset)
    net = tiny.model(laboratory.tokenizer)
    ahead = []
    for chosen, rejected in tiny.pairs(laboratory.rows):
        ahead.append(
            definition.row_log_probs(net, chosen)[0].sum()
            > definition.row_log_probs(net, rejected)[0].sum()
        )
    assert 0 < sum(ahead) < len(ahead)
    assert metrics["eval_logps/accuracy"] == pytest.approx(sum(ahead) / len(ahead))
    assert metrics["eval_rewards/margins"] != 0


@pytest.mark.parametrize(
    ("engine", "stop"), [("transformers", "stop_strings"), ("vllm", "stop")]
)
def test_generation_kwargs_stand_beside_what_generation_says(
    tmp_path, registry, engine, stop
):
    from alignkit import recipe
    from alignkit.train.arguments import arguments

    file = tmp_path / "recipe.yaml"
    file.write_text(
        "name: x\nmethod: grpo\nmodel: {build: {tokenizer: digits}}\nrewards:"
        " {drgrpo: {}}\ndata: {train: {dataset: arithmetic}, prompt:"
        f" arithmetic}}\ngeneration: {{engine: {engine}, stop: [END]}}\ntrain:"
        " {per_device_train_batch_size: 8, generation_kwargs: {suppress_tokens:"
        " [3]}}\n"
    )
    made = arguments(
        recipe.load(file, registry=registry).config, tmp_path, engine=engine, cuda=False
    )
    assert made.generation_kwargs[stop] == ["END"]
    assert made.generation_kwargs["suppress_tokens"] == [3]
