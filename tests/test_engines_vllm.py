"""What can be said of the vLLM engines without vLLM; the rest is in tests/with_vllm."""

from __future__ import annotations

import copy
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignkit import models
from alignkit.engines.serve import Server
from alignkit.engines.vllm_start import Limits, explain, lora_settings
from alignkit.engines.weights import named_weights
from alignkit.errors import InputError, WorkError


@pytest.fixture
def model():
    spec = SimpleNamespace(
        tokenizer="digits",
        hidden_size=32,
        layers=2,
        heads=2,
        intermediate_size=64,
        init_std=0.2,
        max_length=64,
    )
    return models.build(spec, 3)[0]


def lora(model, **settings):
    """`model` with an adapter that does something."""
    tuned = models.add_lora(
        model, {"r": 4, "alpha": 8, "target_modules": "all-linear", **settings}
    )
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    return tuned


# -- weights by name -------------------------------------------------------------------


def test_weights_of_a_lora_model_are_those_of_the_merged_checkpoint(model):
    tuned = lora(model)
    given = {name: weight.clone() for name, weight in named_weights(tuned)}
    merged = dict(copy.deepcopy(tuned).merge_and_unload().named_parameters())
    assert given.keys() == merged.keys()
    for name, weight in given.items():
        torch.testing.assert_close(weight, merged[name])


def test_modules_saved_beside_the_adapter_are_given_in_place_of_the_original(model):
    names = {name for name, _ in model.named_parameters()}
    tuned = lora(model, target_modules=["q_proj"], modules_to_save=["down_proj"])
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name:
                parameter.fill_(7.0)
    given = {name: weight.clone() for name, weight in named_weights(tuned)}
    assert given.keys() == names
    assert (given["model.layers.0.mlp.down_proj.weight"] == 7.0).all()


def test_the_base_is_untouched_bit_by_bit_in_bfloat16(model):
    tuned = lora(model.to(torch.bfloat16))
    before = {name: p.clone() for name, p in tuned.named_parameters()}
    for _ in named_weights(tuned):
        pass
    for name, parameter in tuned.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_the_base_is_put_back_also_when_the_taker_stops_early(model):
    tuned = lora(model)
    before = {name: p.clone() for name, p in tuned.named_parameters()}
    weights = named_weights(tuned)
    for name, _ in weights:
        if name.endswith("q_proj.weight"):
            break
    weights.close()
    for name, parameter in tuned.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_compiled_models_and_layers_give_plain_names(model):
    plain = dict(model.named_parameters())
    model.model.layers[1] = torch.compile(model.model.layers[1])
    assert any("_orig_mod" in name for name, _ in model.named_parameters())
    assert dict(named_weights(torch.compile(model))).keys() == plain.keys()


# -- failures in one message -----------------------------------------------------------

LIMITS = Limits(gpu_memory_utilization=0.3, max_model_len=2048, max_num_seqs=64)


def test_out_of_memory_names_the_numbers_in_force_and_what_to_change():
    error = explain(
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        LIMITS,
        "vLLM did not start",
    )
    assert isinstance(error, WorkError)
    assert "gpu_memory_utilization=0.3, max_model_len=2048, max_num_seqs=64" in str(
        error
    )
    assert "lower gpu_memory_utilization" in str(error)
    assert "gradient_checkpointing" not in str(error)


def test_out_of_memory_beside_a_trainer_names_its_settings_too():
    beside = (
        "per_device_train_batch_size=8, gradient_checkpointing=False,"
        " vllm_enable_sleep_mode=False"
    )
    text = str(
        explain(
            ValueError("Free memory on device (3/80 GiB) is less"),
            LIMITS,
            "vLLM did not start",
            beside,
        )
    )
    assert beside in text
    assert "turn on vllm_enable_sleep_mode" in text and "smaller microbatch" in text


def test_a_kv_cache_too_small_asks_for_more_memory_or_a_shorter_context():
    said = (
        "To serve at least one request with the models's max seq len (2048), 3 GiB KV"
        " cache is needed"
    )
    text = str(explain(ValueError(said), LIMITS, "vLLM did not start"))
    assert "raise gpu_memory_utilization" in text and "lower max_model_len" in text


def test_a_context_longer_than_the_models_is_wrong_input():
    said = (
        "User-specified max_model_len (4096) is greater than the derived max_model_len"
    )
    assert isinstance(
        explain(ValueError(said), LIMITS, "vLLM did not start"), InputError
    )


# -- the server's process --------------------------------------------------------------

LOG = b"""(APIServer pid=7) WARNING 11-21 02:38:44 [system_utils.py:249] like `OSError: [Errno 24] Too many open files`.
(EngineCore pid=8) ERROR 11-21 02:38:51 [core.py:900] Traceback (most recent call last):
(EngineCore pid=8) ERROR 11-21 02:38:51 [core.py:900] torch.OutOfMemoryError: CUDA out of memory.
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.
"""


def alive(pid):
    """Whether a process runs; one that only waits to be reaped does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and ") Z " not in stat.read_text()


def server(command, log, **options):
    process = subprocess.Popen(command, start_new_session=True, **options)
    return Server(process, 1, "tiny", log)


def test_a_server_that_goes_away_says_the_first_cause_in_its_log(tmp_path):
    log = tmp_path / "serve.log"
    log.write_bytes(LOG)
    gone = server([sys.executable, "-c", ""], log)
    with pytest.raises(
        WorkError,
        match=(
            r"out of memory.*gpu_memory_utilization=0\.3.*It said:"
            r" torch\.OutOfMemoryError"
        ),
    ):
        gone._wait(LIMITS, None)


def test_stopping_takes_the_workers_along_even_those_that_refuse(tmp_path, monkeypatch):
    monkeypatch.setattr("alignkit.engines.serve.STOP_WITHIN", 1.0)
    script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; sleep 60' & sleep 60"
    running = server(["sh", "-c", script], tmp_path / "log", stdout=subprocess.PIPE)
    worker = int(running.process.stdout.readline())
    running.stop()
    assert not alive(running.process.pid)
    for _ in range(100):  # a killed process needs a moment to go
        if not alive(worker):
            break
        time.sleep(0.1)
    assert not alive(worker)
    running.stop()  # twice is harmless


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "alignkit.engines.serve.importlib.util.find_spec", lambda name: object()
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} cannot be used"):
            Server.start("tiny", tmp_path / "log", port=port)


def test_the_server_is_told_to_stop_when_align_is_killed(tmp_path):
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent has died")
    child = tmp_path / "child"
    script = (
        "import subprocess, sys, time; from alignkit.engines.serve import"
        " _die_with_parent\np = subprocess.Popen(['sleep', '60'],"
        f" start_new_session=True, preexec_fn=_die_with_parent)\nopen({str(child)!r},"
        " 'w').write(f'{p.pid}.'); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    end = time.monotonic() + 60
    while (
        not (child.is_file() and child.read_text().endswith("."))
        and time.monotonic() < end
    ):
        time.sleep(0.05)
    pid = int(child.read_text().rstrip("."))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    outlived = alive(pid)
    if outlived:
        os.kill(pid, signal.SIGKILL)
    assert not outlived


@pytest.mark.parametrize(
    "unread", [{"alpha_pattern": {"v_proj": 64}}, {"rank_pattern": {"v_proj": 2}}]
)
def test_an_adapter_that_vllm_would_read_in_part_is_refused(model, tmp_path, unread):
    model.name_or_path = "base"
    lora(copy.deepcopy(model)).save_pretrained(tmp_path / "plain")
    assert lora_settings(tmp_path / "plain") == ("base", 8)
    lora(model, **unread).save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match=f"vLLM does not read {next(iter(unread))}"):
        lora_settings(tmp_path / "adapter")
