"""The quickstart's task: add four digits. Two kinds of demonstration: worked ones, and
hasty ones that guess.
"""

import random
from collections.abc import Iterator
from itertools import accumulate, product

from alignkit import DatasetSource, InputError, hookimpl

_HELD_OUT = 1000  # of the 10,000 problems; the same ones whatever the seed


def load(
    *, split: str = "train", size: int = 25_600, worked: float = 0.4, seed: int = 0
) -> Iterator[dict[str, str]]:
    """`size` problems such as `8+2+1+2=?`; no problem of split `test` (at most 1,000)
    is in split `train`.

    `worked` is the share of responses that write the running sums before the answer;
    the others answer at once with the sum plus a number between -9 and 9.
    """
    if split not in ("train", "test"):
        raise InputError(
            f"dataset 'arithmetic' has the splits train and test, not '{split}'"
        )
    if not 0 <= worked <= 1:
        raise InputError(
            f"dataset 'arithmetic': worked is {worked}; expected a share between 0"
            " and 1"
        )
    problems = list(product(range(10), repeat=4))
    random.Random(0).shuffle(problems)
    draw = random.Random(f"{split} {seed}")
    held_out, others = problems[:_HELD_OUT], problems[_HELD_OUT:]
    chosen = held_out[:size] if split == "test" else draw.choices(others, k=size)
    for digits in chosen:
        response = _worked(digits) if draw.random() < worked else _hasty(digits, draw)
        yield {
            "question": "+".join(map(str, digits)) + "=?",
            "truth": str(sum(digits)),
            "response": response,
        }


def _worked(digits: tuple[int, ...]) -> str:
    sums = list(accumulate(digits))
    return f"{' '.join(map(str, sums))}</think> <answer>{sums[-1]}</answer>"


def _hasty(digits: tuple[int, ...], draw: random.Random) -> str:
    return f"</think> <answer>{sum(digits) + draw.randint(-9, 9)}</answer>"


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("arithmetic", load)
