"""The openai engine against a real server."""

import pytest
from servers import OpenAIServer

from alignkit.endpoint.answers import continuation_logprob
from alignkit.engines.base import Sampling
from alignkit.engines.openai import OpenAIEngine
from alignkit.errors import InputError, WorkError

CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]


def engine(server, **options):
    return OpenAIEngine("m", server.url, **{"backoff": 0.01, **options})


def prompt_of(body):
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def test_text_goes_to_completions_and_messages_to_chat_in_the_order_of_the_prompts():
    with OpenAIServer(lambda body: prompt_of(body).upper()) as server:
        found = engine(server).generate(
            ["one", CHAT, "two"], Sampling(temperature=0.0, max_new_tokens=7, seed=3)
        )
    assert [c.text for [c] in found] == ["ONE", "HI", "TWO"]
    assert sorted(server.paths) == [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/completions",
    ]
    chat = next(b for b in server.served if "messages" in b)
    assert chat["messages"] == CHAT
    sent = {k: v for k, v in chat.items() if k != "messages"}
    assert sent == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 3,
    }


def test_the_chat_api_takes_text_as_one_user_message_and_completions_refuses_messages():
    with OpenAIServer() as server:
        engine(server, api="chat").generate(["one"], Sampling())
        assert server.served[0]["messages"] == [{"role": "user", "content": "one"}]
        with pytest.raises(InputError, match="not messages"):
            engine(server, api="completions").generate([CHAT], Sampling())


def test_n_completions_are_reported_once_all_are_there():
    seen = {}
    with OpenAIServer(lambda body: prompt_of(body)) as server:
        found = engine(server).generate(["a", "b"], Sampling(n=3), seen.__setitem__)
    assert [[c.text for c in cs] for cs in found] == [["a"] * 3, ["b"] * 3]
    assert seen == dict(enumerate(found)) and len(server.served) == 2
    assert [c.tokens for c in found[0]] == [5, 5, 5]


def test_a_server_that_ignores_n_is_asked_for_the_rest_with_other_seeds():
    with OpenAIServer(lambda body: f"seed {body['seed']}") as server:
        server.ignore_n = True
        found = engine(server).generate(["a"], Sampling(n=3, seed=5))
    assert len({c.text for c in found[0]}) == 3


def test_every_prompt_is_sampled_with_a_seed_of_its_own_and_again_the_same():
    """Under one seed for all, a server draws the tokens of every prompt with the same
    noise.
    """
    with OpenAIServer(lambda body: f"seed {body['seed']}") as server:
        prompts, sampling = ["a", "b", CHAT, "a"], Sampling(seed=5)
        first, again = (
            engine(server).generate(prompts, sampling),
            engine(server).generate(prompts, sampling),
        )
        other = engine(server).generate(prompts, Sampling(seed=6))
    assert first == again != other
    assert len({c.text for [c] in first}) == 4


def test_a_vllm_server_is_told_every_setting_that_it_would_take_from_the_models_generation_config():
    with OpenAIServer(vllm=True) as server:
        engine(server).generate(["a"], Sampling(temperature=0.0))
        engine(server).generate(["a"], Sampling(top_k=7))
    assert [
        (b["top_k"], b["min_p"], b["repetition_penalty"]) for b in server.served
    ] == [(0, 0, 1), (7, 0, 1)]


def test_a_vllm_server_goes_on_with_an_answer_begun_in_the_prompt():
    begun = [*CHAT, {"role": "assistant", "content": "It is"}]
    with OpenAIServer(vllm=True) as server:
        engine(server).generate([begun], Sampling())
        engine(server).generate([CHAT], Sampling())
    opened, plain = server.served
    assert (
        opened["continue_final_message"] is True
        and opened["add_generation_prompt"] is False
    )
    assert "continue_final_message" not in plain


def test_several_greedy_completions_are_asked_of_vllm_one_by_one():
    with OpenAIServer(vllm=True) as server:
        found = engine(server).generate(["a"], Sampling(temperature=0.0, n=3))
    assert len(found[0]) == 3
    assert [b.get("n", 1) for b in server.served] == [1, 1, 1]


def test_stop_strings_stay_and_other_servers_are_not_sent_them():
    def answer(body):
        return "x </answer> and so on"

    with OpenAIServer(answer) as server:
        [[c]] = engine(server).generate(["q"], Sampling(stop=("</answer>", "zzz")))
    assert "stop" not in server.served[0]
    assert (c.text, c.finish_reason) == ("x </answer>", "stop")


def test_vllm_is_recognised_and_keeps_stop_strings_itself():
    with OpenAIServer(lambda body: "x </answer>", vllm=True) as server:
        [[c]] = engine(server).generate(
            ["q"], Sampling(stop=("</answer>",), min_new_tokens=4, top_k=5)
        )
    body = server.served[0]
    assert body["stop"] == ["</answer>"] and body["include_stop_str_in_output"] is True
    assert body["min_tokens"] == 4 and body["top_k"] == 5 and c.text == "x </answer>"


def test_a_setting_that_only_vllm_knows_is_refused_elsewhere():
    with OpenAIServer() as server, pytest.raises(InputError, match="min_new_tokens"):
        engine(server).generate(["q"], Sampling(min_new_tokens=4))


def test_cut_answers_are_marked_and_a_cut_behind_a_stop_string_is_a_stop():
    with OpenAIServer(
        lambda body: {"text": prompt_of(body), "finish_reason": "length"}
    ) as server:
        found = engine(server).generate(["long", "a#b"], Sampling(stop=("#",)))
    assert [(c.text, c.finish_reason) for [c] in found] == [
        ("long", "length"),
        ("a#", "stop"),
    ]


def test_refusals_and_empty_content_are_answers():
    answers = {
        "refuse": {"message": {"content": None, "refusal": "I cannot."}},
        "empty": {"message": {"content": None}},
    }
    with OpenAIServer(lambda body: dict(answers[prompt_of(body)])) as server:
        found = engine(server, api="chat").generate(["refuse", "empty"], Sampling())
    assert [c.text for [c] in found] == ["I cannot.", ""]


def test_separate_reasoning_is_put_back_when_asked_for():
    def answer(body):
        return {"message": {"content": "42", "reasoning_content": "6 x 7"}}

    with OpenAIServer(answer) as server:
        [[plain]] = engine(server).generate([CHAT], Sampling())
        [[full]] = engine(server, reasoning=True).generate([CHAT], Sampling())
    assert plain.text == "42" and full.text == "<think>\n6 x 7\n</think>\n\n42"


def test_logprobs_are_read_from_both_apis():
    def answer(body):
        if "messages" in body:
            return {
                "logprobs": {
                    "content": [
                        {"token": "a", "logprob": -0.5},
                        {"token": "b", "logprob": -1},
                    ]
                }
            }
        return {"logprobs": {"tokens": ["a"], "token_logprobs": [-2.5]}}

    with OpenAIServer(answer) as server:
        found = engine(server, logprobs=True).generate([CHAT, "x"], Sampling())
    assert [(c.logprobs, c.tokens) for [c] in found] == [
        ((-0.5, -1.0), 2),
        ((-2.5,), 1),
    ]


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "error", "error": {"code": 502}},
        {"message": {"content": [7]}},
        {"message": None},
        {"logprobs": {"content": [{"logprob": float("nan")}]}},
        {"logprobs": {"content": [{"logprob": 10**400}]}},
        {"logprobs": 7},
    ],
)
def test_an_answer_of_the_wrong_shape_is_tried_again(choice):
    given = iter([choice, {"text": "good"}])
    with OpenAIServer(lambda body: dict(next(given))) as server:
        [[c]] = engine(server).generate([CHAT], Sampling())
    assert c.text == "good" and server.requests == 2


def test_what_was_answered_before_the_server_died_was_handed_over():
    seen = {}

    def done(index, completions):
        seen[index] = completions
        if len(seen) == 3:
            server.stop()

    with OpenAIServer(latency=0.02) as server:
        with pytest.raises(
            WorkError, match="requests are left without an answer"
        ) as caught:
            engine(server, attempts=2, concurrency=1).generate(
                ["p"] * 40, Sampling(), done
            )
        assert len(seen) >= 3 and f"{40 - len(seen)} of 40" in str(caught.value)


def test_loglikelihoods_sum_the_continuation_only():
    with OpenAIServer(vllm=True) as server:
        found = engine(server).loglikelihoods(
            [("The answer is", (" A", " BC")), ("x", ("y",))]
        )
    sums = [[one.logprob for one in choices] for choices in found]
    assert sums[0] == pytest.approx([-0.01 * (32 + 65), -0.01 * (32 + 66 + 67)])
    assert sums[1] == pytest.approx([-1.21])
    assert found[1][0].greedy is None, "this server does not say"


@pytest.mark.parametrize(("best", "greedy"), [(-0.1, True), (-0.05, False)])
def test_a_choice_is_greedy_where_each_of_its_tokens_is_the_likeliest(best, greedy):
    logprobs = {"tokens": ["x", " A", "!"], "token_logprobs": [None, -0.1, -9.0]}
    logprobs["top_logprobs"] = [None, {" A": -0.1, " B": best}, {"!": -9.0}]
    answer = {"choices": [{"logprobs": logprobs}]}
    answer["usage"] = {"prompt_tokens": 2, "completion_tokens": 1}
    assert continuation_logprob(answer, " A") == (-0.1, greedy)


def test_loglikelihoods_need_a_server_that_echoes_and_text():
    with OpenAIServer() as server:
        with pytest.raises(InputError, match="no usable log-probs of the prompt"):
            engine(server).loglikelihoods([("x", (" A",))])
        with pytest.raises(InputError, match="need text prompts"):
            engine(server).loglikelihoods([(CHAT, (" A",))])


def test_as_many_requests_are_under_way_as_the_concurrency_allows():
    with OpenAIServer(latency=0.3) as server:
        engine(server, concurrency=20).generate(["p"] * 100, Sampling())
    assert 10 <= server.most_at_once <= 20
