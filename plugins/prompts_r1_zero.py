"""Think first, then answer, in tags: the contract of DeepSeek-R1-Zero and CS336 (our
words); alone, and behind three solved word problems of ours.
"""

from collections.abc import Iterator

from alignkit import Prompt, hookimpl

RULES = (
    "Below, a User puts a question to an Assistant. The Assistant works the question"
    " out step by step before it commits itself: all of its reasoning stands between"
    " <think> and </think>, and after one space the final answer alone stands between"
    " <answer> and </answer>, so that a reply looks like <think> the reasoning </think>"
    " <answer> the final answer </answer>.\n"
)
ASKED = "User: {question}\nAssistant: <think>"
SOLVED = (
    (
        "A shelf holds 18 books. After a delivery it holds 25. How many books were"
        " delivered?",
        "The shelf had 18 books and now has 25. What was added is 25 - 18 = 7.",
        "7",
    ),
    (
        "Mira walks 3 km to school and the same way back, 5 days a week. How many km"
        " does she walk in a week?",
        "A day is 3 + 3 = 6 km. Five days are 5 * 6 = 30 km.",
        "30",
    ),
    (
        "Tom has 40 dollars. He buys 3 pens at 4 dollars each and a bag for 15 dollars."
        " How many dollars are left?",
        "The pens cost 3 * 4 = 12 dollars. With the bag that is 12 + 15 = 27 dollars."
        " Left are 40 - 27 = 13 dollars.",
        "13",
    ),
)
SHOTS = "".join(
    ASKED.replace("{question}", question)
    + f" {thought} </think> <answer> {answer} </answer>\n"
    for question, thought, answer in SOLVED
)


@hookimpl
def align_prompts() -> Iterator[Prompt]:
    yield Prompt("r1_zero", RULES + ASKED, stop=("</answer>",))
    yield Prompt("r1_zero_three_shot", RULES + SHOTS + ASKED, stop=("</answer>",))
