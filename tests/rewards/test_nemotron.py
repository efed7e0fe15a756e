"""The Nemotron reward against a real server on 127.0.0.1."""

import pytest
from servers import OpenAIServer

from alignkit import MissingError, load_kit
from alignkit.endpoint.permits import place
from alignkit.kits import builtin

nemotron = load_kit(builtin().root).get("reward", "nemotron").value.function


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("NVIDIA_API_KEY", "nvapi-secret")


def ask(server, responses, prompts, **options):
    return nemotron(responses, prompts, base_url=server.url, **options)


def test_the_score_stands_in_the_content_and_the_response_is_the_assistants_turn(
    key, monkeypatch
):
    with OpenAIServer(
        lambda b: f"reward:{-len(b['messages'][-1]['content'])}.25", key="nvapi-secret"
    ) as server:
        monkeypatch.setenv(
            "ALIGN_ALLOWED", f'[["{place(server.url)}", "NVIDIA_API_KEY"]]'
        )
        messages = [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
        ]
        scores = ask(server, ["abc", "de"], ["hi", messages])
    assert [(s.reward, s.status) for s in scores] == [(-3.25, "ok"), (-2.25, "ok")]
    turns = sorted(
        [[(m["role"], m["content"]) for m in b["messages"]] for b in server.served],
        key=len,
    )
    assert turns[0] == [("user", "hi"), ("assistant", "abc")]
    assert turns[1] == [("system", "s"), ("user", "u"), ("assistant", "de")]
    assert server.served[0]["model"] == "nvidia/llama-3.1-nemotron-70b-reward"


def test_the_score_of_other_models_stands_in_the_logprobs(key):
    def answer(body):
        scores = {"content": [{"token": "reward", "logprob": -7.5}]}
        return {"message": body["messages"], "logprobs": scores, "finish_reason": None}

    with OpenAIServer(answer) as server:
        [score] = ask(server, ["a"], ["p"])
    assert score.reward == -7.5


@pytest.mark.parametrize(
    "text", ["", "good", "reward:", "reward:nan", "reward:1e999", "-3"]
)
def test_what_is_no_score_is_an_error_and_never_a_number(text, key):
    with OpenAIServer(lambda b: text) as server:
        [score] = ask(server, ["a"], ["p"])
    assert score.status == "error" and "no score" in score.explanation


def test_faults_are_retried_and_equal_pairs_are_asked_once(key):
    with OpenAIServer(lambda b: "reward:1.5", faults=["429:0", "503"]) as server:
        scores = ask(server, ["a", "a", "b"], ["p", "p", "p"])
    assert [s.reward for s in scores] == [1.5] * 3 and len(server.served) == 2


def test_a_missing_key_names_its_variable(monkeypatch):
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)
    with pytest.raises(MissingError, match="NVIDIA_API_KEY"):
        nemotron(["a"], ["p"])


def test_a_server_of_ones_own_needs_no_key(monkeypatch):
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)
    with OpenAIServer(lambda b: "reward:2") as server:
        assert ask(server, ["a"], ["p"], key="")[0].reward == 2.0
