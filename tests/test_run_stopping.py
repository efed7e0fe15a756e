"""A signal asks, a second one ends; each work stops where it can go on from."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

WORK = """
import sys, time
from alignkit.run import stopping
stopping.SAME, stopping.PATIENCE = 0.2, 0.3
stopping.install()
def said(word):
    print(word, flush=True)
try:
{body}
except KeyboardInterrupt:
    said("stopped")
    {after}
    sys.exit(stopping.exit_code())
"""
POLITE = """
    with stopping.deferred(30):
        said("ready")
        while not stopping.asked():
            time.sleep(0.01)
        said("saved")
"""
DEAF = """
    with stopping.deferred({grace}):
        said("ready")
        time.sleep(60)
"""
PLAIN = """
    said("ready")
    time.sleep(60)
"""
# releases the interpreter, but never comes back to it
IN_C = """
    with stopping.last_words(lambda: said("last words")), stopping.deferred({grace}):
        import hashlib
        said("ready")
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 130}


def started(body: str, after: str = "pass", before: list[str] | None = None):
    code = WORK.format(body=body.strip("\n"), after=after)
    command = [*(before or []), sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process) -> tuple[list[str], int]:
    said, _ = process.communicate(timeout=60)
    return said.split("\n")[:-1], process.returncode


@pytest.mark.parametrize("sent", CODES)
def test_work_that_can_save_stops_where_it_says(sent: signal.Signals):
    process = started(POLITE)
    process.send_signal(sent)
    assert ended(process) == (["saved", "stopped"], CODES[sent])


@pytest.mark.parametrize("sent", CODES)
def test_other_work_stops_at_once(sent: signal.Signals):
    process = started(PLAIN)
    process.send_signal(sent)
    assert ended(process) == (["stopped"], CODES[sent])


def test_the_grace_is_bounded():
    process = started(DEAF.format(grace=0.5))
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (["stopped"], 143)
    assert time.monotonic() - began > 0.4


def test_a_second_signal_stops_at_once():
    process = started(DEAF.format(grace=1000))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (["stopped"], 143)


def test_what_comes_at_once_is_one_signal():
    """A scheduler signals all processes of a job, and parents pass it on."""
    process = started(POLITE.replace('said("saved")', 'time.sleep(0.1); said("saved")'))
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        process.send_signal(sent)
    said, code = ended(process)
    assert said == ["saved", "stopped"] and code in (130, 143)


@pytest.mark.parametrize("grace", [0.3, 1000])
def test_a_call_that_never_returns_is_ended_with_last_words(grace: float):
    process = started(IN_C.format(grace=grace))
    process.send_signal(signal.SIGTERM)
    if grace == 1000:
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
    assert ended(process) == (["last words"], 143)


def test_nohup_keeps_a_hang_up_out():
    process = started(PLAIN, before=["nohup"])
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (["stopped"], 143)


def test_a_forked_child_that_is_ended_does_not_stop_its_parent():
    fork = """
    import os, signal
    child = os.fork()
    if not child:
        time.sleep(60)
    time.sleep(0.1)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    said("ready")
    time.sleep(0.5)
    assert not stopping.asked()
    said("went on")
    sys.exit(0)
"""
    assert ended(started(fork)) == (["went on"], 0)
