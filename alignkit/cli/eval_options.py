"""The options of `align eval` about who generates and who judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def prompt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the model is shown, and what of its reply is scored."""
    return _with(
        command,
        click.option("--prompt", help="A prompt's name (align plugins list)."),
        click.option(
            "--prompt-file",
            metavar="FILE",
            help="A prompt template, taken byte for byte.",
        ),
        click.option(
            "--shots",
            type=click.IntRange(1),
            metavar="N",
            help="Solved questions shown before each, of the data's train split.",
        ),
        click.option(
            "--shots-from",
            metavar="FILE",
            help="Solved questions, in the place of that split.",
        ),
        click.option(
            "--reasoning",
            type=click.Choice(["strip", "keep"]),
            help="Score the reply behind </think>, or the whole (default: as the eval says).",
        ),
    )


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which models, and what generates with them."""
    return _with(
        command,
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="PATH",
            help="Folder, run, or Hub id (repeatable).",
        ),
        click.option(
            "--engine",
            type=click.Choice(["auto", "transformers", "vllm", "openai"]),
            default="auto",
        ),
        click.option(
            "--base-url",
            metavar="URL",
            help="An OpenAI-compatible server that has the model.",
        ),
        click.option(
            "--serve",
            is_flag=True,
            help="Start a vLLM server here for the time of the eval.",
        ),
        click.option(
            "--replicas",
            type=click.IntRange(1),
            help="Copies of the model, one per GPU (--serve).",
        ),
        click.option(
            "--gpu-memory-utilization",
            type=click.FloatRange(0, 1, min_open=True),
            help="vLLM's share of a GPU.",
        ),
        click.option(
            "--max-model-len",
            type=click.IntRange(1),
            help="vLLM: longest prompt with completion.",
        ),
        click.option(
            "--max-num-seqs",
            type=click.IntRange(1),
            help="vLLM: completions generated at once.",
        ),
        click.option(
            "--tensor-parallel-size",
            type=click.IntRange(1),
            help="vLLM: GPUs that share one copy of the model.",
        ),
        click.option(
            "--key-variable",
            metavar="NAME",
            help="The environment variable with the endpoint's key.",
        ),
        click.option(
            "--api",
            type=click.Choice(["auto", "chat", "completions"]),
            help="Of the endpoint.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(1),
            help="Requests under way at once (default: 16; with --serve 256).",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            help="Completions at once, of a model in this process (default: 32).",
        ),
        click.option(
            "--dtype", metavar="NAME", help="Of the weights (default: the model's own)."
        ),
    )


def judge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Who judges, and at what cost."""
    return _with(
        command,
        click.option(
            "--judge",
            metavar="NAME[:MODEL]",
            help="Who judges, for evals that need it.",
        ),
        click.option(
            "--judge-config",
            metavar="FILE",
            help="A judge as the eval's own library describes it.",
        ),
        click.option(
            "--both-orders",
            is_flag=True,
            help="Show a judge each pair in both orders: --set both_orders=true.",
        ),
        click.option(
            "--judge-base-url", metavar="URL", help="Another server for the judge."
        ),
        click.option(
            "--judge-key",
            metavar="NAME",
            help="The environment variable with the judge's key.",
        ),
        click.option(
            "--judge-tokens",
            type=click.IntRange(1),
            metavar="N",
            help="Tokens of a judge's answer at most, its thinking included.",
        ),
        click.option(
            "--judge-price",
            type=float,
            metavar="USD",
            help="Dollars per million tokens, in and out.",
        ),
        click.option(
            "--max-cost",
            type=float,
            metavar="USD",
            help="Stop judging before this is exceeded.",
        ),
    )


def _with(command: Callable[..., Any], *options: Callable[..., Any]) -> Any:
    """In this order in the help."""
    for option in reversed(options):
        command = option(command)
    return command
