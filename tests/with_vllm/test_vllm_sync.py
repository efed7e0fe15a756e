"""The sync of weights by itself, on the colocated vLLM of one GRPO trainer."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from alignkit import models
from alignkit.engines.base import Sampling
from alignkit.engines.weights import named_weights, reload_weights
from alignkit.errors import WorkError

PROMPTS = [
    f"User: {a}+{b}+3+4=?\nAssistant: <think>"
    for a, b in itertools.product(range(4), (2, 9))
]
GREEDY = Sampling(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def trainer(trained, tmp_path_factory):
    from datasets import Dataset
    from trl import GRPOConfig

    from alignkit.train.policy import AlignGRPOTrainer

    model, tokenizer = models.load(str(trained), dtype="float32")
    cuda = torch.cuda.is_available()
    args = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trainer")),
        use_vllm=True,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=24,
        beta=0.0,
        bf16=False,
        use_cpu=not cuda,
        gradient_checkpointing=False,
        report_to="none",
    )
    rows = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])
    return AlignGRPOTrainer(
        model=model, args=args, train_dataset=rows, reward_funcs=lambda completions, **_: [0.0] * len(completions),
        processing_class=tokenizer,
    )  # fmt: skip


@pytest.fixture
def generation(trainer):
    """The trainer's vLLM; afterwards the trainer's weights are as they were."""
    kept = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    yield trainer.vllm_generation
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            parameter.copy_(kept[name])


def move(model, part="", size=0.05):
    """Change the trainer's weights, as an optimizer step would."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.add_(size * torch.randn_like(parameter))


def ids(trainer):
    return trainer.processing_class(PROMPTS)["input_ids"]


def rollouts(trainer):
    return trainer.vllm_generation.generate(
        prompts=ids(trainer), images=None, num_generations=1
    )


@pytest.mark.parametrize(
    "part",
    [
        "embed_tokens",
        "q_proj.weight",
        "v_proj.bias",
        "gate_proj",
        "input_layernorm",
        "model.norm",
    ],
)
def test_a_change_of_any_part_arrives(trainer, generation, part):
    move(trainer.model, part)
    generation.sync_weights()
    rollouts(trainer)
    assert generation.proven
    assert generation.difference[0] < 1e-4


@pytest.mark.parametrize("part", ["embed_tokens", "v_proj.weight", "gate_proj"])
def test_a_change_that_was_not_synchronised_is_found(trainer, generation, part):
    generation.sync_weights()
    move(trainer.model, part)
    with pytest.raises(WorkError, match="do not come from the current weights"):
        rollouts(trainer)


Weights = dict[str, torch.Tensor]


def left_out(*parts):
    """Some tensors stay what the last sync made them."""

    def change(new: Weights, old: Weights) -> Weights:
        return {n: old[n] if any(p in n for p in parts) else new[n] for n in new}

    return change


def exchanged(new: Weights, old: Weights) -> Weights:
    other = {"0": "1", "1": "0"}
    return {
        n: new[re.sub(r"layers\.([01])\.", lambda m: f"layers.{other[m[1]]}.", n)]
        for n in new
    }


FAULTS = {
    "nothing loaded": left_out(""),
    "half loaded": left_out("layers.1."),
    "norms left out": left_out("norm"),
    "biases left out": left_out("bias"),
    "layers exchanged": exchanged,
    "scaled": lambda new, old: {n: w * (1 + 1e-4) for n, w in new.items()},
    "rounded": lambda new, old: {n: w.bfloat16().float() for n, w in new.items()},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_sync_is_found_after_an_update_of_the_usual_size(
    trainer, generation, monkeypatch, fault
):
    def load(llm, weights):
        new = {name: weight.clone() for name, weight in weights}
        reload_weights(llm, FAULTS[fault](new, old).items())

    generation.sync_weights()
    old = {name: weight.clone() for name, weight in named_weights(trainer.model)}
    move(trainer.model, size=3e-5)
    with monkeypatch.context() as patched:
        patched.setattr("alignkit.train.vllm.reload_weights", load)
        with pytest.raises(WorkError, match="weights of vLLM are not the trainer's"):
            generation.sync_weights()
    generation.sync_weights()
    rollouts(trainer)
    assert generation.proven
    assert generation.compared > 5


def test_the_proof_is_made_once_per_sync(trainer, generation):
    generation.sync_weights()
    rollouts(trainer)
    generation.difference = None
    rollouts(trainer)
    assert generation.difference is None


def test_compiled_layers_are_synchronised_under_their_plain_names(trainer, generation):
    layers = trainer.model.model.layers
    plain = layers[1]
    layers[1] = torch.compile(plain, backend="eager")
    try:
        move(trainer.model, "layers.1")
        generation.sync_weights()
        rollouts(trainer)
    finally:
        layers[1] = plain
    assert generation.difference[0] < 1e-4


def test_an_eval_gets_the_weights_of_its_step_and_training_goes_on(trainer, generation):
    from alignkit.engines.transformers import TransformersEngine
    from alignkit.train.synced import trainer_engine

    move(trainer.model)
    trainer.state.global_step += 1
    expected = TransformersEngine(
        trainer.model, trainer.processing_class, name="x"
    ).generate(PROMPTS, GREEDY)
    with trainer_engine(trainer, "policy") as engine:
        assert engine.generate(PROMPTS, GREEDY) == expected
        assert engine.model == "policy"
    rollouts(trainer)
    assert generation.proven


def test_an_eval_leaves_the_rollouts_after_it_as_they_would_have_been(
    trainer, generation
):
    from alignkit.train.synced import trainer_engine

    drawn = Sampling(temperature=1.0, max_new_tokens=24, seed=3)

    def after(evals):
        torch.manual_seed(5)
        generation.sync_weights()
        first = rollouts(trainer)[1]
        for sampling in evals:
            with trainer_engine(trainer, "policy") as engine:
                engine.generate(PROMPTS, sampling)
        return first, rollouts(trainer)[1]

    plain = after([])
    assert after([GREEDY, drawn]) == plain
    assert plain[0] != plain[1]


def test_an_eval_gets_the_best_weights_put_back_within_the_step_of_the_last_sync(
    trainer, generation
):
    """`load_best_model_at_end` changes the weights without a further step."""
    from alignkit.engines.transformers import TransformersEngine
    from alignkit.train.synced import trainer_engine

    with trainer_engine(trainer, "policy") as engine:
        before = engine.generate(PROMPTS, GREEDY)
    move(trainer.model)
    expected = TransformersEngine(
        trainer.model, trainer.processing_class, name="x"
    ).generate(PROMPTS, GREEDY)
    with trainer_engine(trainer, "policy") as engine:
        assert engine.generate(PROMPTS, GREEDY) == expected != before


def test_rollouts_are_drawn_with_the_seed_of_the_run(trainer, generation):
    assert trainer.args.seed == 42
    assert generation.llm.llm_engine.model_config.seed == 42


@pytest.mark.parametrize(("least", "most"), [(40, 60), (24, 24)])
def test_the_sync_is_proven_also_where_a_completion_may_not_end_early(
    trainer, generation, monkeypatch, least, most
):
    monkeypatch.setitem(generation.generation_kwargs, "min_tokens", least)
    monkeypatch.setattr(generation, "max_completion_length", most)
    move(trainer.model)
    generation.sync_weights()
    generation.prove()
    assert generation.proven
    assert generation.difference[0] < 1e-4
    if most == 24:
        generation.sync_weights()
        rollouts(trainer)
        assert generation.proven
        assert generation.difference[0] < 1e-4
    move(trainer.model, "gate_proj")
    generation.proven = False
    with pytest.raises(WorkError, match="do not come from the current weights"):
        generation.prove()


def test_what_sleep_mode_drops_is_given_again_before_it_is_used(
    trainer, generation, monkeypatch
):
    """Sleep mode needs a GPU; here its effect is made by hand: sleeping destroys the
    weights.
    """
    from alignkit.engines.transformers import TransformersEngine
    from alignkit.train.synced import trainer_engine

    calls = []

    def sleep(level):
        calls.append("sleep")
        reload_weights(
            generation.llm,
            ((name, torch.zeros_like(w)) for name, w in named_weights(trainer.model)),
        )

    monkeypatch.setattr(generation.llm, "sleep", sleep)
    monkeypatch.setattr(generation.llm, "wake_up", lambda tags: calls.extend(tags))
    monkeypatch.setattr(generation, "enable_sleep_mode", True)
    sleep(2)
    generation._llm_weights_sleeping = True
    calls.clear()
    generation.sync_weights()
    rollouts(trainer)
    assert calls == ["weights", "kv_cache", "sleep"]
    calls.clear()
    # the same step again: no sync is asked for, and the weights are gone
    rollouts(trainer)
    assert calls == ["weights", "kv_cache", "sleep"]
    calls.clear()
    expected = TransformersEngine(
        trainer.model, trainer.processing_class, name="x"
    ).generate(PROMPTS, GREEDY)
    with trainer_engine(trainer, "policy") as engine:
        assert engine.generate(PROMPTS, GREEDY) == expected
    assert calls[-1] == "sleep"
    rollouts(trainer)
    assert generation.proven
    generation._llm_weights_sleeping = False
    generation.enable_sleep_mode = False
    generation.sync_weights()


def test_settings_that_cannot_be_compared_are_not_called_proven(
    trainer, generation, monkeypatch
):
    monkeypatch.setattr(generation, "comparable", False)
    generation.sync_weights()
    rollouts(trainer)
    assert not generation.proven
