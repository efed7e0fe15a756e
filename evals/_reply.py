"""What a model replied, for the evals that hand replies to a judge."""


def reply_text(response: str) -> str:
    """A chat reply without what belongs to the template of `zero_shot_system`: the next
    query, the closing fence.
    """
    text = response.partition("# Query:")[0].strip()
    return text.removesuffix("```").rstrip() if text.count("```") % 2 else text


def one_question(system: str, user: str) -> list[list[dict[str, str]]]:
    """The judge's conversations: one, of a system and a user message."""
    messages = [("system", system), ("user", user)]
    return [[{"role": role, "content": content} for role, content in messages]]
