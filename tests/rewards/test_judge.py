"""A judge as a reward, against a real server on 127.0.0.1."""

import pytest
from servers import OpenAIServer

from alignkit import InputError, load_kit
from alignkit.kits import builtin

judge = load_kit(builtin().root).get("reward", "judge").value.function


def ask(server, responses, prompts, **options):
    return judge(responses, prompts, judge="vllm", base_url=server.url, **options)


def test_a_rating_is_scaled_and_the_last_one_counts():
    said = {
        "good": "Rating: 3? No.\nRating: **10**",
        "poor": "bad\nrating: 1",
        "fair": "Rating: 5.5/10",
    }
    with OpenAIServer(
        lambda b: next(v for k, v in said.items() if k in b["messages"][0]["content"])
    ) as server:
        scores = ask(server, list(said), ["p"] * 3, question="{prompt} {response}")
    assert [s.reward for s in scores] == [1.0, 0.0, pytest.approx(0.5)]
    assert {s.status for s in scores} == {"ok"} and scores[0].parts == {"rating": 10.0}


def test_braces_in_texts_are_left_alone_and_messages_are_shown_with_their_roles():
    with OpenAIServer(lambda b: "Rating: 7") as server:
        ask(
            server,
            ["{prompt} {x}"],
            [[{"role": "user", "content": "use {response}"}]],
            question="<{prompt}><{response}>",
        )
    assert (
        server.served[0]["messages"][0]["content"]
        == "<user: use {response}><{prompt} {x}>"
    )


@pytest.mark.parametrize(
    "text", ["I will not rate this.", "", "Rating: 11", "Rating: -1", "7"]
)
def test_what_is_no_rating_on_the_scale_is_an_error(text):
    with OpenAIServer(lambda b: text) as server:
        [score] = ask(server, ["a"], ["p"])
    assert score.status == "error" and "no rating" in score.explanation


def test_the_default_question_names_the_scale():
    with OpenAIServer(lambda b: "Rating: 2") as server:
        [score] = ask(server, ["R"], ["P"], lowest=1, highest=5)
    text = server.served[0]["messages"][0]["content"]
    assert "from 1 " in text and "to 5 " in text and "\nP\n" in text and "\nR\n" in text
    assert score.reward == pytest.approx(0.25)


def test_an_empty_scale_is_refused():
    with OpenAIServer() as server, pytest.raises(InputError, match="lowest"):
        ask(server, ["a"], ["p"], lowest=5, highest=5)
