"""`align eval` against a real vLLM server that align starts and stops."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from commands import SECONDS, align

from alignkit import models
from alignkit.errors import InputError


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    from alignkit.engines.serve import Server
    from alignkit.engines.vllm_start import Limits

    waits = []
    log = tmp_path_factory.mktemp("server") / "serve.log"
    started = Server.start(
        str(trained),
        log,
        limits=Limits(gpu_memory_utilization=0.3, max_num_seqs=64),
        waiting=waits.append,
    )
    assert waits == sorted(waits) and waits
    yield started
    started.stop()


def rows(folder):
    (file,) = folder.rglob("samples.jsonl")
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["id"]: {k: v for k, v in row.items() if k != "seconds"} for row in kept}


def summary(folder):
    (file,) = folder.rglob("summary.json")
    found = json.loads(file.read_text())
    found.pop("timings")
    found["provenance"].pop("engine")
    return found


def test_one_eval_gives_the_same_files_through_every_engine(trained, server, tmp_path):
    ways = {
        "transformers": ["--engine", "transformers"],
        "vllm": ["--engine", "vllm"],
        "served": ["--engine", "openai", "--base-url", server.base_url],
        "serve": ["--serve", "--gpu-memory-utilization", "0.3", "--max-num-seqs", "64"],
    }
    for name, options in ways.items():
        out = tmp_path / name
        align(
            "eval",
            "arithmetic",
            "--model",
            trained,
            "--limit",
            60,
            "--out",
            out,
            *options,
            cwd=tmp_path,
        )
        assert len(rows(out)) == 60
        assert rows(out) == rows(tmp_path / "transformers"), name
        assert summary(out) == summary(tmp_path / "transformers"), name
    (stored,) = (tmp_path / "vllm").rglob("samples.jsonl")
    out = tmp_path / "stored"
    align(
        "eval",
        "arithmetic",
        "--responses",
        stored,
        "--limit",
        60,
        "--out",
        out,
        cwd=tmp_path,
    )
    assert rows(out) == rows(tmp_path / "vllm")


def test_several_samples_per_question_come_from_one_request_each(
    trained, server, tmp_path
):
    options = [
        "--engine",
        "openai",
        "--base-url",
        server.base_url,
        "--samples",
        4,
        "--set",
        "temperature=1.0",
    ]
    align(
        "eval",
        "arithmetic",
        "--model",
        trained,
        "--limit",
        10,
        "--out",
        tmp_path / "out",
        *options,
        cwd=tmp_path,
    )
    (file,) = (tmp_path / "out").rglob("samples.jsonl")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(found) == 40
    assert len({row["response"] for row in found}) > 10
    tokenizer = models.load_tokenizer(str(trained))
    for row in found:  # an end token does not show
        assert row["tokens"] - len(tokenizer(row["response"])["input_ids"]) in (0, 1)


def test_a_server_that_does_not_start_says_why(trained, tmp_path):
    from alignkit.engines.serve import Server
    from alignkit.engines.vllm_start import Limits

    with pytest.raises(
        InputError, match=r"max_model_len.*In force: .*max_model_len=4096"
    ):
        Server.start(str(trained), tmp_path / "log", limits=Limits(max_model_len=4096))


def test_a_server_killed_in_the_middle_loses_nothing_that_was_answered(
    trained, server, tmp_path
):
    """Last in this file: it stops the shared server."""
    from alignkit.engines.serve import Server
    from alignkit.engines.vllm_start import Limits

    out, log = tmp_path / "out", tmp_path / "again.log"
    command = ["eval", "arithmetic", "--model", str(trained), "--out", str(out), "--concurrency", "5",
               "--engine", "openai", "--base-url"]  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "alignkit.cli", *command, server.base_url],
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + SECONDS / 4
    while answered(out) < 10 and running.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert running.poll() is None, running.stderr.read()
    server.stop()
    _, said = running.communicate(timeout=SECONDS / 4)
    assert running.returncode == 1, said
    assert "Traceback" not in said
    before = rows(out)
    assert 10 <= len(before) < 500
    again = Server.start(
        str(trained), log, limits=Limits(gpu_memory_utilization=0.3, max_num_seqs=64)
    )
    try:
        align(*command, again.base_url, cwd=tmp_path)
    finally:
        again.stop()
    after = rows(out)
    assert len(after) == 500
    assert {i: after[i]["response"] for i in before} == {
        i: row["response"] for i, row in before.items()
    }


def answered(out):
    return sum(
        len(file.read_text().splitlines()) for file in out.rglob("samples.jsonl")
    )


def test_a_server_that_reads_prompts_with_another_tokenizer_is_refused(
    trained, tmp_path
):
    """A folder that says qwen2 is opened with Qwen's tokenizer, whatever tokenizer is
    saved in it.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from alignkit.engines.serve import Server
    from alignkit.engines.vllm_start import Limits

    tokenizer = models.load_tokenizer(str(trained))
    ends = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=64, head_dim=32, **ends,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(
        InputError, match="vLLM opens this model with another tokenizer"
    ):
        Server.start(
            str(tmp_path / "model"),
            tmp_path / "log",
            limits=Limits(gpu_memory_utilization=0.3),
        )
