"""One call of a judge: which requests have a verdict, which have to be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alignkit.types import Message

Conversation = Sequence[Message]
# (id, what is asked about it: most often one conversation)
Request = tuple[str, Sequence[Conversation]]
Texts = tuple[str, ...]  # one verdict per conversation


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a call of `JudgeClient.ask` brought.

    `texts`: id -> accepted verdicts. `open`: id -> why there is none yet; the next call
        asks again. `asked`: answers received now; `reused`: ids answered from the
        ledger. Tokens and dollars are what these requests cost in this call and in
        earlier ones, unreadable verdicts included, by the server's `usage`; dollars are
        None without a price, or when a server did not say what it used.
    """

    texts: dict[str, Texts] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = None


class Questions:
    """The requests of one call, and which of them are open.

    Args:
        key_of: of a conversation.
        stored: the newest text under a key, where there is one.
        accept: whether the texts for an id can be read as a verdict.
        on_done: called with (id, texts) for each accepted verdict.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        key_of: Callable[[Conversation], str],
        stored: Callable[[str], str | None],
        accept: Callable[[str, Texts], bool],
        on_done: Callable[[str, Texts], None] | None,
    ) -> None:
        self.stored = stored
        self.accept = accept
        self.on_done = on_done
        self.texts: dict[str, Texts] = {}
        self.open: dict[str, list[str]] = {}  # id -> keys of its conversations
        self.why: dict[str, str] = {}  # id -> why it is open
        # key -> conversation: equal ones are asked once
        self.conversations: dict[str, Conversation] = {}
        self._users: dict[str, list[str]] = {}  # key -> ids
        for id_, conversations in requests:
            keys = [key_of(conversation) for conversation in conversations]
            self.conversations.update(zip(keys, conversations, strict=True))
            self.open[id_] = keys
            for key in dict.fromkeys(keys):
                self._users.setdefault(key, []).append(id_)
        for id_ in list(self.open):
            self._settle(id_)

    def to_ask(self) -> dict[str, Conversation]:
        """What is missing; for an unreadable verdict all of its conversations, as any
        may be at fault.
        """
        todo = {}
        for keys in self.open.values():
            missing = [key for key in keys if self.stored(key) is None]
            todo.update({key: self.conversations[key] for key in missing or keys})
        return todo

    def answered(self, key: str, outstanding: set[str]) -> None:
        """An answer came; `outstanding` are the keys that are still waited for."""
        outstanding.discard(key)
        for id_ in self._open_users(key):
            if outstanding.isdisjoint(self.open[id_]):
                self._settle(id_)

    def failed(self, key: str, why: str) -> None:
        """A conversation got no answer."""
        self.why.update(dict.fromkeys(self._open_users(key), why))

    def _open_users(self, key: str) -> list[str]:
        return [id_ for id_ in self._users[key] if id_ in self.open]

    def _settle(self, id_: str) -> None:
        found = [self.stored(key) for key in self.open[id_]]
        texts = tuple(text for text in found if text is not None)
        if len(texts) < len(found):
            return
        # Whether it can be read is judged anew each time, so that a better parser needs
        # no new payment.
        if not self.accept(id_, texts):
            shown = ", ".join(repr(text[:80]) for text in texts)
            self.why[id_] = f"unreadable verdict: {shown}"
            return
        del self.open[id_]
        self.texts[id_] = texts
        if self.on_done:
            self.on_done(id_, texts)
