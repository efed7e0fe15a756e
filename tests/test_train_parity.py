"""TRL's own losses written as plugins give TRL's own losses and gradients, over three
optimizer steps that move.
"""

import pytest

from alignkit import Loss, kits, plugins

torch = pytest.importorskip("torch")

STEPS = 3
BETA = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model on disk, so that TRL can load the reference from its path."""
    from alignkit import models
    from alignkit.conformance import laboratory as tiny

    path = tmp_path_factory.mktemp("model")
    tokenizer = models.build_tokenizer("digits")
    tiny.model(tokenizer).float().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


def parts(folder):
    from transformers import AutoModelForCausalLM

    from alignkit import models

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    ), models.build_tokenizer("digits")


def settings(tmp_path, **extra):
    common = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": STEPS,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 3,
    }
    return {**common, **extra}


def train(trainer):
    """Loss and gradients of each optimizer step."""
    from transformers import TrainerCallback

    gradients = []

    class Catch(TrainerCallback):
        def on_pre_optimizer_step(self, *args, **kwargs):
            gradients.append(
                {
                    n: w.grad.clone()
                    for n, w in trainer.model.named_parameters()
                    if w.grad is not None
                }
            )

    trainer.add_callback(Catch())
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == len(gradients) == STEPS
    return losses, gradients


def assert_same(stock, plugin):
    assert stock[0] == pytest.approx(plugin[0], abs=1e-5)
    assert any(gradient.abs().max() > 1e-3 for gradient in stock[1][-1].values())
    for ours, theirs in zip(plugin[1], stock[1], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            # the kernels of one CPU round 2e-5 away from those of another
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=3e-5)


def policy(method, folder, tmp_path, objective, extra, peft_config=None):
    from datasets import Dataset
    from trl import GRPOConfig, RLOOConfig

    from alignkit.conformance import laboratory as tiny
    from alignkit.train.policy import AlignGRPOTrainer, AlignRLOOTrainer

    model, tokenizer = parts(folder)
    table = tiny.rows(tokenizer)

    class Fixed(AlignGRPOTrainer if method == "grpo" else AlignRLOOTrainer):
        def _generate_single_turn(self, prompt_ids, *rest):
            seen, ids = {}, []
            for prompt in prompt_ids:
                matching = [row.response for row in table if row.prompt == list(prompt)]
                at = seen[tuple(prompt)] = seen.get(tuple(prompt), -1) + 1
                ids.append(list(matching[at % len(matching)]))
            return (ids, None) if method == "grpo" else ids

    def reward(prompts, completions, completion_ids, **_):
        return [float(sum(ids) % 5) / 4 for ids in completion_ids]

    kind = GRPOConfig if method == "grpo" else RLOOConfig
    args = kind(
        **settings(
            tmp_path,
            num_generations=4,
            max_completion_length=10,
            num_iterations=2,
            **extra,
        )
    )
    data = Dataset.from_list([{"prompt": prompt} for prompt in tiny.PROMPTS])
    return Fixed(
        model=model,
        args=args,
        reward_funcs=reward,
        train_dataset=data,
        processing_class=tokenizer,
        objective=objective,
        peft_config=peft_config,
    )


def bnpo(batch):
    """TRL's bnpo: the mean over the microbatch's tokens; `constant` 1 then divides by
    the rows of the step.
    """
    from alignkit import compute_grpo_clip_loss

    loss, _ = compute_grpo_clip_loss(
        batch.advantages.unsqueeze(1), batch.logps, batch.old_logps, 0.2
    )
    return loss * len(batch.mask) / batch.mask.sum()


@pytest.mark.parametrize(
    ("loss_type", "normalize"),
    [("grpo", "sequence"), ("dr_grpo", "constant"), ("dapo", "token")],
)
@pytest.mark.parametrize("beta", [0.0, pytest.param(BETA, marks=pytest.mark.slow)])
def test_grpo_losses(folder, tmp_path, registry, loss_type, normalize, beta):
    from alignkit.train.objective import Objective

    objective = Objective(registry.get("loss", "grpo_clip").value, normalize=normalize)
    ours = train(policy("grpo", folder, tmp_path, objective, {"beta": beta}))
    stock = train(
        policy("grpo", folder, tmp_path, None, {"beta": beta, "loss_type": loss_type})
    )
    assert_same(stock, ours)


@pytest.mark.parametrize(
    ("name", "options", "normalize", "extra"),
    [
        (
            "grpo_clip",
            {"cliprange": 0.02, "cliprange_high": 0.1},
            "token",
            {"loss_type": "dapo", "epsilon": 0.02, "epsilon_high": 0.1},
        ),
        (
            "gspo",
            {"cliprange": 0.02, "cliprange_high": 0.05},
            "sequence",
            {
                "loss_type": "grpo",
                "importance_sampling_level": "sequence",
                "epsilon": 0.02,
                "epsilon_high": 0.05,
            },
        ),
        (
            "cispo",
            {"cliprange_high": 0.1},
            None,
            {"loss_type": "cispo", "epsilon_high": 1.1},
        ),
    ],
)
def test_off_policy_losses(folder, tmp_path, registry, name, options, normalize, extra):
    from alignkit.train.objective import Objective

    objective = Objective(registry.get("loss", name).value, options, normalize)
    ours = train(policy("grpo", folder, tmp_path, objective, {}))
    assert_same(train(policy("grpo", folder, tmp_path, None, extra)), ours)


def test_bnpo(folder, tmp_path):
    from alignkit.train.objective import Objective

    loss = Loss("bnpo", bnpo, ("grpo",), depends_on_microbatch=True)
    ours = train(
        policy(
            "grpo",
            folder,
            tmp_path,
            Objective(loss, normalize="constant", constant=1.0),
            {},
        )
    )
    assert_same(
        train(policy("grpo", folder, tmp_path, None, {"loss_type": "bnpo"})), ours
    )


@pytest.mark.parametrize("beta", [0.0, pytest.param(BETA, marks=pytest.mark.slow)])
def test_rloo(folder, tmp_path, registry, beta):
    from alignkit.train.objective import Objective

    objective = Objective(
        registry.get("loss", "rloo").value,
        advantage=registry.get("advantage", "leave_one_out").value,
    )
    ours = train(policy("rloo", folder, tmp_path, objective, {"beta": beta}))
    stock = train(policy("rloo", folder, tmp_path, None, {"beta": beta}))
    assert_same(stock, ours)


@pytest.mark.slow
def test_grpo_with_lora_and_the_group_advantage(folder, tmp_path, registry):
    from peft import LoraConfig

    from alignkit.train.objective import Objective

    loss, group = (
        registry.get("loss", "grpo_clip").value,
        registry.get("advantage", "group").value,
    )
    objective = Objective(
        loss, normalize="token", advantage=group, advantage_options={"eps": 1e-4}
    )

    def lora():
        torch.manual_seed(0)
        return LoraConfig(
            r=2,
            target_modules="all-linear",
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )

    ours = train(policy("grpo", folder, tmp_path, objective, {"beta": BETA}, lora()))
    stock = train(policy("grpo", folder, tmp_path, None, {"beta": BETA}, lora()))
    assert_same(stock, ours)


@pytest.mark.parametrize("shape", ["token", "sequence"])
def test_the_vllm_importance_correction_is_applied_as_trl_does(
    folder, tmp_path, registry, shape
):
    from alignkit.train.objective import Objective

    objective = Objective(registry.get("loss", "grpo_clip").value, normalize="sequence")
    gradients = []
    for own in (objective, None):
        trainer = policy(
            "grpo", folder, tmp_path, own, {"loss_type": "grpo"} if own is None else {}
        )
        inputs = trainer._generate_and_score_completions([{"prompt": "1+2=?"}] * 4)
        width = inputs["completion_ids"].shape[1] if shape == "token" else 1
        torch.manual_seed(0)
        inputs["importance_sampling_ratio"] = torch.rand(4, width) + 0.5
        trainer.use_vllm = True  # what TRL looks at; there is no engine behind it here
        trainer.current_gradient_accumulation_steps = trainer._window = 1
        trainer._buffered_inputs = [inputs]
        trainer._compute_loss(trainer.model, inputs).backward()
        gradients.append(
            {
                name: weight.grad.clone()
                for name, weight in trainer.model.named_parameters()
            }
        )
    for name in gradients[0]:
        torch.testing.assert_close(
            gradients[0][name], gradients[1][name], rtol=1e-5, atol=1e-6
        )


def test_sft_nll(folder, tmp_path, registry):
    from datasets import Dataset
    from trl import SFTConfig

    from alignkit.conformance import laboratory as tiny
    from alignkit.train.objective import Objective
    from alignkit.train.sft import AlignSFTTrainer

    def made(objective):
        model, tokenizer = parts(folder)
        rows = [
            {
                "input_ids": row.prompt + row.response,
                "labels": [-100] * len(row.prompt) + row.response,
            }
            for row in tiny.rows(tokenizer)
        ]
        args = SFTConfig(**settings(tmp_path))
        data = Dataset.from_list(rows)
        return AlignSFTTrainer(
            model=model,
            args=args,
            train_dataset=data,
            processing_class=tokenizer,
            objective=objective,
        )

    assert_same(
        train(made(None)),
        train(made(Objective(registry.get("loss", "sft").value, normalize="token"))),
    )


def test_dpo_sigmoid(folder, tmp_path, registry):
    from datasets import Dataset
    from trl import DPOConfig

    from alignkit.train.dpo import AlignDPOTrainer
    from alignkit.train.objective import Objective

    rows = [
        {"prompt": f"1+{n}=?", "chosen": f"{n + 1}", "rejected": f"{n} {n}"}
        for n in range(8)
    ]

    def made(objective):
        model, tokenizer = parts(folder)
        args = DPOConfig(**settings(tmp_path, beta=0.1))
        return AlignDPOTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            objective=objective,
        )

    ours, stock = (
        made(Objective(registry.get("loss", "dpo").value, {"beta": 0.1})),
        made(None),
    )
    assert_same(train(stock), train(ours))
    names = (
        "rewards/chosen",
        "rewards/margins",
        "rewards/accuracies",
        "entropy",
        "logps/chosen",
    )
    for mine, theirs in zip(
        ours.state.log_history[:STEPS], stock.state.log_history[:STEPS], strict=True
    ):
        assert {n: mine[n] for n in names} == pytest.approx(
            {n: theirs[n] for n in names}, abs=1e-5
        )
