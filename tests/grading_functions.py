"""Reward functions for tests of the grader; in a module, so that a worker can import
them.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from alignkit import MissingError, Score


def length(response):
    return float(len(response))


def in_order(truth, response, *, prefix=""):
    return Score(1.0, explanation=f"{prefix}{response}/{truth}")


def process_id(response):
    return os.getpid()


def sleep(response):
    time.sleep(float(response))
    return 1.0


def hold(response):
    """Never gives the interpreter's lock away: a single operation that takes years."""
    return float(9 ** (9 ** int(response)) > 0)


def allocate(response):
    return float(len(bytes(int(response))))


def crash(response):
    raise KeyError(f"no such key: {response}")


def not_finite(response):
    return float(response)


def die(response):
    if response == "die":
        os._exit(3)
    return 1.0


def die_once(response):
    """`response` is a file: the first worker that sees it absent makes it and dies."""
    if not Path(response).exists():
        Path(response).touch()
        os._exit(3)
    return 1.0


def shout(response):
    print("shouted", response)
    return 1.0


def needs_key(response):
    raise MissingError("the key is not set: export SOME_KEY=…")


def count_calls(response, metadata):
    with Path(metadata["file"]).open("a") as file:
        file.write(".")
    return 1.0


async def wait(response):
    await asyncio.sleep(float(response))
    return 1.0


async def wait_and_crash(response):
    await asyncio.sleep(0)
    if response == "crash":
        raise ValueError("asynchronous trouble")
    return 1.0


async def wait_for_all(responses, truths):
    await asyncio.sleep(0)
    return [float(r == t) for r, t in zip(responses, truths, strict=True)]


def batch(responses, prompts):
    return [len(r) + len(p) for r, p in zip(responses, prompts, strict=True)]


def slow_batch(responses):
    time.sleep(0.5)
    return [1.0] * len(responses)


def one_value(responses):
    return [1.0]


def stdin_is_closed(response):
    return float(sys.stdin.read() == "")
