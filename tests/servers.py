"""A real HTTP server on 127.0.0.1 that speaks the OpenAI protocol and can fail in every
way an endpoint does.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATUSES = {"400": "bad request", "401": "bad key", "402": "pay first", "404": "no such model", "410": "model retired",
            "429": "slow down", "500": "broken", "503": "overloaded"}  # fmt: skip


def say(text):
    """An `answer` function that always says the same."""
    return lambda body: text


class OpenAIServer:
    """Context manager. `url` is the base URL.

    Args:
        answer: body -> text, or -> dict: a whole choice (merged over the defaults).
        faults: a list of fault names consumed one per request (None: no fault), then
            none; see `FAULTS`.
        fault_rate: further requests fail with this probability with one of
            `random_faults`.
        latency: seconds before each answer. slow: seconds of the fault `slow`.
        vllm: say in /models that this is vLLM; keep stop strings; echo log-probs.
        key: the key to demand. refuses: body -> the words in which it is refused for
            good, or nothing.

    `served`: the bodies answered with 200 in full, in order; `requests`: how many came;
        `faulted`: faults done.
    """

    FAULTS = (
        *STATUSES,
        "429:SECONDS",
        "429:date",
        "503:SECONDS",
        "reset",
        "half",
        "garbage",
        "shapeless",
        "slow",
    )

    def __init__(
        self,
        answer=None,
        *,
        faults=(),
        fault_rate=0.0,
        random_faults=("500", "503", "429", "reset"),
        latency=0.0,
        slow=3.0,
        vllm=False,
        key=None,
        usage=True,
        seed=0,
        port=0,
        refuses=lambda body: "",
    ):
        self.answer, self.faults, self.latency, self.slow = (
            answer or say("ok"),
            list(faults),
            latency,
            slow,
        )
        self.fault_rate, self.random_faults, self.random = (
            fault_rate,
            random_faults,
            random.Random(seed),
        )
        self.vllm, self.key, self.usage, self.port = vllm, key, usage, port
        self.refuses = refuses
        self.lock = threading.Lock()
        self.served, self.paths, self.arrivals = [], [], []
        self.requests = 0
        self.gone = self.ignore_n = False
        self.faulted = Counter()
        self.most_at_once = self._at_once = 0

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"owner": self})
        _Server.allow_reuse_address = True
        self.server = _Server(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(0.02,), daemon=True
        )
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        """Gone for good: connections are refused from now on."""
        if self.gone:
            return
        self.gone = True
        self.server.shutdown()
        self.server.server_close()

    def times_served(self):
        """How often each conversation or prompt was answered."""
        return Counter(
            json.dumps(b.get("messages", b.get("prompt"))) for b in self.served
        )

    def next_fault(self, body):
        with self.lock:
            self.requests += 1
            fault = self.faults.pop(0) if self.faults else None
            if fault is None and self.random.random() < self.fault_rate:
                fault = self.random.choice(self.random_faults)
            if fault:
                self.faulted[fault] += 1
            return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """Clients that are killed or give up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: OpenAIServer

    def log_message(self, *args):
        pass

    def do_GET(self):
        models = [
            {
                "id": "m",
                "object": "model",
                "owned_by": "vllm" if self.owner.vllm else "someone",
            }
        ]
        self.reply(200, json.dumps({"object": "list", "data": models}).encode())

    def do_POST(self):
        owner = self.owner
        if owner.gone:  # a connection kept alive from before
            return self.fail("reset", {})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with owner.lock:
            owner.arrivals.append(time.monotonic())
            owner._at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner._at_once)
        try:
            if owner.key and self.headers.get("Authorization") != f"Bearer {owner.key}":
                said = {
                    "error": {
                        "message": f"bad key: {self.headers.get('Authorization')}"
                    }
                }
                return self.reply(401, json.dumps(said).encode())
            fault = owner.next_fault(body)
            if owner.latency:
                time.sleep(owner.latency)
            if fault:
                return self.fail(fault, body)
            if words := owner.refuses(body):
                said = {"error": {"message": words, "code": "content_filter"}}
                return self.reply(400, json.dumps(said).encode())
            raw = json.dumps(self.completion(body)).encode()
            self.reply(200, raw)
            with owner.lock:
                owner.served.append(body)
                owner.paths.append(self.path)
        finally:
            with owner.lock:
                owner._at_once -= 1

    def reply(self, status, raw, headers=(), length=None):
        head = [
            f"HTTP/1.1 {status} x",
            "Content-Type: application/json",
            f"Content-Length: {length or len(raw)}",
        ]
        self.wfile.write("\r\n".join([*head, *headers, "", ""]).encode() + raw)
        self.wfile.flush()

    def fail(self, fault, body):
        kind, _, argument = fault.partition(":")
        if kind in STATUSES:
            headers = []
            if argument:
                headers = [
                    "Retry-After:"
                    f" {formatdate(time.time() + 2, usegmt=True) if argument == 'date' else argument}"
                ]
            return self.reply(
                int(kind),
                json.dumps({"error": {"message": STATUSES[kind]}}).encode(),
                headers,
            )
        if kind == "slow":
            time.sleep(self.owner.slow)
            kind = "reset"
        if kind == "reset":
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        elif kind == "half":
            raw = json.dumps(self.completion(body)).encode()
            self.reply(200, raw[: len(raw) // 2], length=len(raw))
        elif kind == "garbage":
            return self.reply(200, b'{"choices": [{"mess')
        elif kind == "shapeless":
            return self.reply(
                200,
                b'{"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}',
            )
        self.close_connection = True
        self.connection.close()

    def completion(self, body):
        chat = self.path.endswith("/chat/completions")
        choices = []
        for index in range(1 if self.owner.ignore_n else body.get("n", 1)):
            given = self.owner.answer(body)
            given = given if isinstance(given, dict) else {"text": given}
            text = given.pop("text", "")
            choice = {"index": index, "finish_reason": "stop"}
            choice |= (
                {"message": {"role": "assistant", "content": text}}
                if chat
                else {"text": text}
            )
            choices.append(choice | given)
        if body.get("echo") and self.owner.vllm:
            choices[0]["logprobs"] = echoed(body["prompt"])
        prompt = json.dumps(body["messages"]) if chat else body["prompt"]
        answer = {
            "id": "x",
            "object": "chat.completion",
            "model": body["model"],
            "choices": choices,
        }
        if self.owner.usage:
            tokens_in = len(prompt) if body.get("echo") else len(prompt) // 4
            usage = {"prompt_tokens": tokens_in, "completion_tokens": 5 * len(choices)}
            answer["usage"] = {**usage, "total_tokens": sum(usage.values())}
        return answer


def echoed(prompt):
    """Log-probs of a model of characters: -0.01 x code point; the first has none; one
    generated token follows.
    """
    values = [None, *(-0.01 * ord(c) for c in prompt[1:]), -9.0]
    return {"tokens": [*prompt, "!"], "token_logprobs": values}
