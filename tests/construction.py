"""Recipes on tiny models, planned, and taken as far as their trainer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from alignkit import models, plan, recipe
from alignkit.data.datasets import Datasets
from alignkit.plan import verdict
from alignkit.recipe import rules, to_yaml, trl
from alignkit.recipe.rules import Problem

ROWS = 16
ARITHMETIC = {"dataset": "arithmetic", "split": "train", "size": ROWS}
VALIDATION = {"data": {"validation": {**ARITHMETIC, "split": "test"}}}
RL = {
    "data": {"train": ARITHMETIC, "prompt": "arithmetic"},
    "rewards": {"exact_match": {}},
    "generation": {"engine": "transformers", "max_new_tokens": 4},
    "train": {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 2},
}
ITERATION = {
    "data": {"train": ARITHMETIC, "prompt": "arithmetic"},
    "rewards": {"exact_match": {}},
    "expert_iteration": {"questions": 2, "rollouts": 2},
}
BASES: dict[str, dict[str, Any]] = {
    "sft": {
        "data": {"train": ARITHMETIC, "prompt": "arithmetic"},
        "loss": {"name": "sft"},
        "train": {"max_steps": 1, "max_length": 64, "per_device_train_batch_size": 2},
    },
    "grpo": {**RL, "loss": {"name": "grpo_clip"}},
    "rloo": {**RL, "loss": {"name": "trl"}},
    "dpo": {
        "data": {"train": {"dataset": "jsonl", "path": "../pairs.jsonl"}},
        "loss": {"name": "trl"},
        "train": {"max_steps": 1, "per_device_train_batch_size": 2},
    },
    "expert_iteration": ITERATION,
}


class Spec:
    """A model of some hundred numbers."""

    tokenizer = "digits"
    hidden_size, layers, heads, intermediate_size = 16, 2, 2, 16
    init_std, max_length = 0.08, 64


def merged(base: Any, change: Any) -> Any:
    """Maps merge, all else replaces."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


class Workshop:
    """A folder with models and data, in which recipes are written."""

    def __init__(self, folder: Path, registry: Any) -> None:
        import transformers

        self.folder, self.registry = folder, registry
        self.count = 0
        model, tokenizer = models.build(Spec, 0)
        models.save(model, tokenizer, folder / "tied")
        model.config.tie_word_embeddings = False
        apart = transformers.LlamaForCausalLM(model.config)
        models.save(apart, tokenizer, folder / "untied")
        rows = [
            {"prompt": f"1+{i}=?", "chosen": f"{i + 1}", "rejected": "0"}
            for i in range(8)
        ]
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / "pairs.jsonl").write_text(text, encoding="utf-8")

    def write(
        self, method: str, change: dict[str, Any], *, recorded: bool = False
    ) -> Path:
        """A recipe of a method, with changes; `recorded` as what a run folder holds.

        DPO's validation rows are those that it trains on.
        """
        self.count += 1
        base = {"method": method, "model": {"path": "../tied"}, **BASES[method]}
        whole = merged(base, change)
        if method == "dpo" and "validation" in whole["data"]:
            whole["data"]["validation"] = whole["data"]["train"]
        folder = self.folder / f"{method}{self.count}"
        folder.mkdir()
        path = folder / "recipe.yaml"
        path.write_text(to_yaml(whole), encoding="utf-8")
        if recorded:
            (folder / "manifest.json").write_text("{}", encoding="utf-8")
        return path

    def load(self, method: str, change: dict[str, Any]) -> Any:
        """The recipe, unless its schema refuses it; the rules are not asked."""
        path = self.write(method, change, recorded=True)
        return recipe.load(path, registry=self.registry)

    def facts(self, loaded: Any) -> rules.Facts:
        """What `align plan` knows beside the recipe."""
        model = loaded.config.model
        tokenizer = models.load_tokenizer(model.path)
        return verdict.facts(model, self.registry, tokenizer, ROWS)

    def refusals(self, loaded: Any) -> list[str]:
        """What `align plan`, and `align run` before anything else, says against it."""
        plans = plan.plan(loaded, self.registry)
        return [text for stage in plans for text in stage.wrong + stage.missing]

    def unread(self, loaded: Any) -> list[str]:
        """What nothing would read, which a recipe is refused for when it is loaded."""
        config, method = loaded.resolved, loaded.config.method
        effective = trl.effective(config, method)
        fields = trl.unread(method, config.get("train", {}), effective)
        keys = trl.unread_keys(method, config, effective)
        return [text for _, text in (*fields, *keys)]

    def problems(
        self, method: str, change: dict[str, Any], **known: Any
    ) -> list[Problem]:
        """What the rules say of a recipe."""
        loaded = self.load(method, change)
        return list(
            rules.check(loaded.config, rules.Facts(registry=self.registry, **known))
        )

    def construct(self, loaded: Any, *, steps: bool = False) -> Exception | None:
        """What stops the run on the way to its first step, or, with `steps`, to the saved model.

        Nothing of what is checked first is asked.
        """
        from alignkit.train.start import create_run
        from alignkit.train.training import prepared
        from alignkit.train.watchers import Watchers

        self.count += 1
        datasets = Datasets(self.registry)
        run = create_run(
            loaded, self.registry, datasets, folder=self.folder / f"run{self.count}"
        )
        console = Console(file=io.StringIO())
        watchers = Watchers.of(loaded, self.registry, run)
        parts = (loaded, self.registry, datasets, console, run, watchers)
        try:
            with prepared(*parts) as training:
                trainer = training.trainer
                if steps:
                    trainer.train()
                    model = trainer.accelerator.unwrap_model(trainer.model)
                    models.save(model, trainer.processing_class, run.model)
                else:
                    trainer.get_train_dataloader()
                    trainer.create_optimizer_and_scheduler(1)
        except Exception as error:  # noqa: BLE001 (any one ends the run)
            return error
        return None
