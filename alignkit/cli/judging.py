"""Who judges, by the flags of `align eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.cli.common import allow_typed
from alignkit.errors import InputError

if TYPE_CHECKING:
    from alignkit.benchmarks import JudgeConfig, JudgeTask
    from alignkit.endpoint.judges import JudgeClient
    from alignkit.plugins import Registry


def judge_config(
    registry: Registry, evals: Sequence[str], flags: dict[str, Any]
) -> JudgeConfig | None:
    """What --judge-config says; its judge, model and price go into the flags where these
    say nothing else.
    """
    path = flags["judge_config"]
    if path is None:
        return None
    tasks: dict[str, JudgeTask] = {}
    for name in registry.names("eval"):
        task = registry.get("eval", name).value.judge
        if task is not None and task.configured is not None:
            tasks[name] = task
    if len(set(evals)) != 1 or evals[0] not in tasks:
        raise InputError(
            f"--judge-config: for one eval that has such files ({', '.join(tasks)}),"
            f" not for {', '.join(evals)}"
        )
    read = tasks[evals[0]].configured
    assert read is not None
    config = read(path)
    name, _, model = (flags["judge"] or config.judge).partition(":")
    flags["judge"] = f"{name}:{model or config.model}".rstrip(":")
    if flags["judge_price"] is None:
        flags["judge_price"] = config.price
    return config


def judge_client(
    registry: Registry,
    flags: Mapping[str, Any],
    root: Path,
    config: JudgeConfig | None,
) -> JudgeClient | None:
    """The judge that the flags name, with its ledger below `root`."""
    from alignkit.endpoint.judges import JudgeClient, resolve

    if not flags["judge"]:
        return None
    chosen = resolve(
        registry,
        flags["judge"],
        flags["judge_base_url"],
        flags["judge_price"],
        flags["judge_key"],
    )
    if flags["judge_base_url"] or flags["judge_key"]:
        allow_typed(chosen.base_url, chosen.key)
    return JudgeClient(
        chosen,
        root / "judgements.jsonl",
        max_cost=flags["max_cost"],
        max_new_tokens=flags["judge_tokens"],
        config=config,
        concurrency=flags["concurrency"] or 16,
    )
