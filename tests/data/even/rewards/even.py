"""What an untrained model answers rightly by chance."""

from alignkit import Reward, Score, hookimpl


def even(response: str) -> Score:
    """1 for a response of even length."""
    return Score(float(len(response) % 2 == 0))


@hookimpl
def align_rewards():
    yield Reward("even", even)
