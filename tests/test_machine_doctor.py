import json
import stat
from types import SimpleNamespace

import pytest

from alignkit.cli import cli
from alignkit.machine import doctor, gpus

SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) echo "0, GPU-1a, {card}" ;;
  *) echo "| NVIDIA-SMI 580.1   Driver Version: 580.1   CUDA Version: {cuda} |" ;;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the PATH that reports one card."""

    def put(card="NVIDIA H100 80GB HBM3, 81559, 512, 9.0", cuda="13.0", text=None):
        program = tmp_path / "nvidia-smi"
        program.write_text(text or SMI.format(card=card, cuda=cuda))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return put


@pytest.fixture
def no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def torch_built_for(tmp_path, monkeypatch):
    """Puts a torch in front that was built for a CUDA version (None: the CPU)."""

    def put(cuda):
        folder = tmp_path / "site" / "torch"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(
            "raise ImportError('doctor must not import torch')"
        )
        (folder / "version.py").write_text(f"cuda: Optional[str] = {cuda!r}\n")
        spec = SimpleNamespace(origin=str(folder / "__init__.py"))
        monkeypatch.setattr(
            "alignkit.machine.doctor.importlib.util.find_spec", lambda name: spec
        )

    return put


def named(name):
    return next(one for one in doctor.examine({}) if one.name == name)


def test_a_gpu_that_shares_the_processors_memory_is_named_without_numbers(
    nvidia_smi, torch_built_for
):
    torch_built_for("13.0")
    for card in ("NVIDIA GB10, [N/A], [N/A], 12.1", "NVIDIA GB10, [N/A], [N/A], [N/A]"):
        nvidia_smi(card)
        gpu = named("GPU 0")
        assert (gpu.status, gpu.found) == ("ok", "NVIDIA GB10")


def test_a_gpu_is_described_with_its_memory(nvidia_smi, torch_built_for):
    nvidia_smi()
    torch_built_for("13.0")
    gpu = named("GPU 0")
    assert gpu.status == "ok"
    assert gpu.found == "NVIDIA H100 80GB HBM3, 0.5 of 79.6 GiB in use"
    assert named("CUDA").status == "ok"


def test_a_gpu_beside_a_cpu_build_of_torch_is_named_with_the_command_that_mends_it(
    nvidia_smi, torch_built_for
):
    nvidia_smi()
    torch_built_for(None)
    cuda = named("CUDA")
    assert cuda.status == "missing"
    assert cuda.fix.startswith("pip install")


def test_a_driver_older_than_torchs_cuda_is_named(nvidia_smi, torch_built_for):
    nvidia_smi(cuda="12.4")
    torch_built_for("13.0")
    assert named("CUDA").status == "missing"
    assert "12.4" in named("CUDA").found


def test_a_newer_minor_cuda_version_runs_on_the_driver(nvidia_smi, torch_built_for):
    nvidia_smi(cuda="12.4")
    torch_built_for("12.8")
    assert named("CUDA").status == "ok"


def test_memory_held_by_others_is_a_warning(nvidia_smi, torch_built_for):
    nvidia_smi(card="NVIDIA A100, 40960, 30000, 8.0")
    torch_built_for("13.0")
    assert named("GPU 0").status == "warning"
    assert "another process" in named("GPU 0").found


def test_a_card_without_bfloat16_is_a_warning(nvidia_smi, torch_built_for):
    nvidia_smi(card="Tesla T4, 15360, 0, 7.5")
    torch_built_for("13.0")
    assert "no bfloat16" in named("GPU 0").found


def test_a_driver_that_does_not_answer_counts_as_no_gpu(nvidia_smi):
    nvidia_smi(text="#!/bin/sh\nexit 9\n")
    assert (gpus.cards(), gpus.driver()) == ([], "")
    assert named("GPU").status == "warning"


def test_keys_are_named_and_their_values_never_shown(monkeypatch, no_gpu):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    findings = doctor.examine({})
    assert "verysecret" not in repr(findings)
    keys = {one.name: one.status for one in findings if one.name.startswith("key ")}
    assert keys["key HF_TOKEN"] == "ok"
    assert keys["key WANDB_API_KEY"] == "missing"


def test_the_hub_is_asked_unless_offline(monkeypatch, no_gpu):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert named("Hub").status == "warning"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    for proxy in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    assert named("Hub").status == "missing"


def test_everything_that_is_not_ok_says_what_mends_it(no_gpu):
    findings = doctor.examine({})
    assert [one.name for one in findings if one.status != "ok" and not one.fix] == []
    assert [one.name for one in findings if one.status == "ok" and one.fix] == []


def settings(**changes):
    return SimpleNamespace(
        **{"sleep": False, "mode": "colocate", "tensor_parallel": 1, **changes}
    )


@pytest.fixture
def vllm_here(tmp_path, monkeypatch):
    folder = tmp_path / "meta" / "vllm-0.31.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"sleep": True}, "sleep"), ({"mode": "server"}, "mode server")],
)
def test_modes_of_vllm_that_need_a_gpu_are_refused_without_one(
    vllm_here, no_gpu, changes, key
):
    (problem,) = doctor.vllm_missing(settings(**changes))
    assert problem.startswith(f"generation.vllm.{key}")


def test_more_gpus_than_there_are_is_refused(vllm_here, nvidia_smi):
    nvidia_smi()
    assert (
        "2 GPUs are asked for, 1 are here"
        in doctor.vllm_missing(settings(tensor_parallel=2))[0]
    )
    assert doctor.vllm_missing(settings()) == []


def test_a_vllm_outside_the_allowed_range_is_refused(tmp_path, monkeypatch, no_gpu):
    folder = tmp_path / "meta" / "vllm-0.40.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.40.0\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    assert "<0.32" in doctor.vllm_missing(None)[0]


def test_the_command_gives_json_and_the_verdict_on_a_recipe(tmp_path, capsys, no_gpu):
    recipe = tmp_path / "recipe.yaml"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "1+1=?", "truth": "2"}\n' * 8)
    recipe.write_text(
        "name: here\nmethod: grpo\nmodel: {build: {tokenizer: bytes}}\ndata:"
        f" {{train: {{dataset: jsonl, path: {rows}}}, prompt: question_only}}\nrewards:"
        " {exact_match: {}}\ntrain: {max_steps: 1, num_generations: 2,"
        " per_device_train_batch_size: 2}\ngeneration: {engine: transformers,"
        " max_new_tokens: 4}\n"
    )
    arguments = ["doctor", "--json", "--recipe", str(recipe)]
    code = cli.main(arguments, prog_name="align", standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (code, told["recipe"]["missing"], told["recipe"]["wrong"]) == (0, [], [])
    assert {one["status"] for one in told["findings"]} <= {"ok", "warning", "missing"}
    recipe.write_text(
        recipe.read_text().replace(
            "engine: transformers", "engine: vllm, vllm: {sleep: true}"
        )
    )
    code = cli.main(arguments, prog_name="align", standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert code == 3
    assert "generation" in told["recipe"]["missing"][0]
