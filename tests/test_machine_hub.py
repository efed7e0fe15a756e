"""Whether the Hub is asked: a server on this machine stands for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alignkit.errors import MissingError
from alignkit.machine import hub


class Hub(BaseHTTPRequestHandler):
    """Answers every request with one small file, and notes its path."""

    asked: list[str]

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(b'{"model_type": "qwen2"}')

    def answer(self, body):
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) or 23))
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def online(monkeypatch):
    """As on a machine where nothing is said of the Hub and no proxy stands between."""
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def nobody() -> str:
    """The address of a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_mirror_that_answers_is_used(online, server):
    online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    hub.settle()
    assert "HF_HUB_OFFLINE" not in os.environ


def test_without_an_answer_this_process_and_its_children_are_offline(online):
    online.setenv("HF_ENDPOINT", nobody())
    hub.settle()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_what_the_user_has_said_of_it_stands(online):
    online.setenv("HF_ENDPOINT", nobody())
    online.setenv("HF_HUB_OFFLINE", "0")
    hub.settle()
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_proxy_is_asked_in_the_place_of_the_hub(online, server):
    online.setenv("HF_ENDPOINT", nobody())
    online.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
    assert hub.reachable()


def test_a_file_is_fetched_from_the_mirror(online, server, tmp_path):
    code = (
        "from alignkit.machine import hub\nhub.settle()\n"
        "from huggingface_hub import hf_hub_download\n"
        "print(open(hf_hub_download('some/model', 'config.json')).read())"
    )
    online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"},
    )
    assert '"model_type": "qwen2"' in done.stdout, done.stderr
    assert any("some/model" in path for path in server.asked)


def test_a_model_that_is_neither_cached_nor_reachable_is_missing(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError, match=r"some/model.*hf download some/model"):
        hub.require_model("some/model")
    hub.require_model(str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.require_model("some/model")
