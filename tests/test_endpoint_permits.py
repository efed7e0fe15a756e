"""A key goes only where an installed judge plugin, the command line or the user's own
file says; what a recipe alone names is asked nothing.
"""

from __future__ import annotations

import json
import threading
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from servers import OpenAIServer

from alignkit import cli
from alignkit.endpoint import permits
from alignkit.endpoint.http import Endpoint
from alignkit.endpoint.judges import find_judge
from alignkit.errors import AlignError, InputError

KEY = "sk-marked-0123456789"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ALIGN_ALLOWED", raising=False)
    monkeypatch.setattr(permits, "_declared", set())
    for name in ("OPENAI_API_KEY", "NVIDIA_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)


def key_sent(url: str, variable: str | None = "OPENAI_API_KEY") -> str | None:
    return Endpoint(url, key_variable=variable).key()


def test_a_key_goes_to_the_host_of_its_judge_plugin_alone():
    find_judge("openai")
    assert key_sent("https://api.openai.com/v1") == KEY
    assert key_sent("https://API.OpenAI.com:443/v1") == KEY
    assert key_sent("https://api.openai.com/v1", None) is None
    for variable in ("NVIDIA_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        with pytest.raises(InputError, match=f"--allow-host api.openai.com={variable}"):
            key_sent("https://api.openai.com/v1", variable)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1",
        "https://api.openai.com.evil.example/v1",
        "https://api.openai.com:8443/v1",
        "https://api.openai.com./v1",
        "http://api.openai.com:443/v1",
        "http://api.openai.com/v1",
        "https://user@api.openai.com/v1",
        "https://api.openai.com@evil.example/v1",
        "https://evil.example\\@api.openai.com/v1",
        "https://evil.example#@api.openai.com/v1",
        "https://\N{CYRILLIC SMALL LETTER A}pi.openai.com/v1",
        "https://api\N{FULLWIDTH FULL STOP}openai.com/v1",
        "https://xn--pi-7kc.openai.com/v1",
        "https://localhost.evil.com/v1",
        "https://127.0.0.1.nip.io/v1",
        "https://2130706433/v1",
        "https://0.0.0.0/v1",
        "https://[2001:db8::1]/v1",
        "https://%61pi.openai.com/v1",
    ],
)
def test_no_other_host_gets_it(url: str):
    find_judge("openai")
    with pytest.raises(InputError) as refused:
        key_sent(url)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("url", ["https://evil.example/v1", "http://gpu7:8000/v1"])
def test_a_host_that_nobody_named_is_asked_nothing_without_a_key_either(url: str):
    with pytest.raises(InputError, match=r"nothing was sent.*--allow-host"):
        key_sent(url, None)
    with permits.allowing(permits.parsed(url.split("/")[2], "")):
        assert key_sent(url, None) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "LOCALHOST"])
def test_a_server_on_this_machine_needs_no_key_and_gets_one_only_where_allowed(host):
    url = f"http://{host}:8000/v1"
    assert key_sent(url) is None
    with permits.allowing(permits.parsed(f"{host}:8000=OPENAI_API_KEY", "")):
        assert key_sent(url) == KEY
        assert key_sent(url.replace("8000", "9000")) is None
        assert key_sent(url, "NVIDIA_API_KEY") is None


def test_an_allowed_host_gets_only_the_key_that_is_named_for_it():
    with permits.allowing(permits.parsed("mine.example=NVIDIA_API_KEY", "")):
        assert key_sent("https://mine.example/v1", "NVIDIA_API_KEY") == KEY
        assert key_sent("https://mine.example/v1", None) is None
        with pytest.raises(InputError, match="OPENAI_API_KEY"):
            key_sent("https://mine.example/v1")
        with pytest.raises(InputError, match="plain http"):
            key_sent("http://mine.example/v1", "NVIDIA_API_KEY")
    with pytest.raises(InputError):
        key_sent("https://mine.example/v1", "NVIDIA_API_KEY")


def test_the_users_own_file_allows(tmp_path: Path):
    file = tmp_path / ".config" / "alignkit" / "hosts.toml"
    file.parent.mkdir(parents=True)
    file.write_text('"mine.example" = ["OPENAI_API_KEY"]\n"gpu7:8000" = []\n')
    assert key_sent("https://mine.example/v1") == KEY
    assert key_sent("http://gpu7:8000/v1", None) is None
    with pytest.raises(InputError):
        key_sent("http://gpu7:8001/v1", None)
    for wrong in (
        "a =",
        '"a" = 3',
        '"https://a/v1" = "B"',
        '"u@a" = []',
        '"a" = "b c"',
    ):
        file.write_text(wrong)
        with pytest.raises(InputError, match=r"hosts\.toml"):
            key_sent("https://mine.example/v1")


def test_what_may_be_the_key_itself_is_not_repeated():
    with pytest.raises(InputError) as refused:
        key_sent("https://evil.example/v1", KEY)
    assert KEY not in str(refused.value)


RECIPE = """\
extends: grpo_math.yaml
name: shared
data: {{train: {{dataset: jsonl, path: rows.jsonl}}}}
evals: ~
rewards: {{drgrpo: ~, {reward}}}
"""
EVIL = "https://evil.example/v1"
NAMED = {
    "url": "nemotron: {base_url: 'https://evil.example/v1'}",
    "url and key": "nemotron: {base_url: 'https://evil.example/v1', key: AWS_SECRET_ACCESS_KEY}",
    "key": "nemotron: {key: AWS_SECRET_ACCESS_KEY}",
    "judge": "judge: {judge: openai, base_url: 'https://evil.example/v1'}",
    "no key": "nemotron: {base_url: 'http://evil.example/v1', key: ''}",
}


def planned(
    folder: Path, capsys: pytest.CaptureFixture[str], reward: str, *more: str
) -> tuple[list[str], list[str]]:
    """What `align plan` finds wrong about servers, and whom the recipe would ask."""
    row = {"question": "1+1?", "truth": "2", "prompt": "a", "response": "b"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    file = folder / "shared.yaml"
    file.write_text(RECIPE.format(reward=reward))
    mini = ("--with", "recipes/overlays/mini.yaml")
    with pytest.raises(SystemExit):
        cli.main(["plan", str(file), *mini, *more, "--json"])
    [stage] = json.loads(capsys.readouterr().out)["stages"]
    return [text for text in stage["wrong"] if "rewards." in text], stage["hosts"]


@pytest.mark.parametrize("case", NAMED)
def test_a_recipe_that_names_another_host_or_key_is_refused_by_plan(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    wrong, hosts = planned(tmp_path, capsys, NAMED[case])
    assert len(wrong) == 1 and not hosts and "--allow-host" in wrong[0]
    assert KEY not in wrong[0]


def test_plan_shows_which_key_goes_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    wrong, hosts = planned(tmp_path, capsys, "nemotron: {}")
    assert not wrong
    [told] = hosts
    assert "integrate.api.nvidia.com with the key in NVIDIA_API_KEY" in told
    allowed = ("--allow-host", "evil.example=AWS_SECRET_ACCESS_KEY")
    wrong, hosts = planned(tmp_path, capsys, NAMED["url and key"], *allowed)
    assert not wrong and "AWS_SECRET_ACCESS_KEY" in hosts[0]
    # of that command alone
    assert planned(tmp_path, capsys, NAMED["url and key"])[0]


def test_a_typed_setting_is_the_users_word_but_not_for_a_key_that_a_file_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    typed = ("--set", f"rewards.nemotron.base_url={EVIL}")
    assert not planned(tmp_path, capsys, "nemotron: {}", *typed)[0]
    stated = "nemotron: {key: AWS_SECRET_ACCESS_KEY}"
    assert planned(tmp_path, capsys, stated, *typed)[0]


def test_a_typed_reward_asks_the_server_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": "p", "response": "r", "truth": "t"}
    rows.write_text(json.dumps(row) + "\n")
    with OpenAIServer(lambda body: "reward:1.5", key=KEY) as server:
        spec = f"nemotron:base_url={server.url},key=AWS_SECRET_ACCESS_KEY"
        with pytest.raises(SystemExit) as left:
            cli.main(["grade", str(rows), "--reward", spec, "--json"])
    said = capsys.readouterr()
    assert left.value.code == 0, said.err
    assert json.loads(said.out)["rewards"][spec]["mean"] == 1.5


class Redirecting(BaseHTTPRequestHandler):
    """Sends every request elsewhere, and notes the keys that come."""

    keys: ClassVar[list[str | None]] = []
    target = ""

    def do_POST(self) -> None:
        self.keys.append(self.headers.get("Authorization"))
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(307)
        self.send_header("Location", self.target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_redirect_never_carries_the_key_on():
    with OpenAIServer(lambda body: "yes") as target:
        Redirecting.target = f"{target.url}/chat/completions"
        server = HTTPServer(("127.0.0.1", 0), Redirecting)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        place = f"127.0.0.1:{server.server_port}"
        with permits.allowing([(place, "OPENAI_API_KEY")]):
            endpoint = Endpoint(f"http://{place}/v1", key_variable="OPENAI_API_KEY")
            body = {"messages": [{"role": "user", "content": "x"}]}
            outcome = endpoint.post("/chat/completions", [body], str, lambda *_: None)
        server.shutdown()
        server.server_close()
        assert Redirecting.keys == [f"Bearer {KEY}"]
        assert len(outcome.left) == 1 and target.requests == 0 and not target.served


SECRETS = (
    *("OPENAI_API_KEY", "NVIDIA_API_KEY", "FIREWORKS_API_KEY", "TOGETHER_API_KEY"),
    *("OPENROUTER_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY"),
    *("GITHUB_TOKEN", "MY_KEY"),
)


def test_marked_secrets_reach_no_file_and_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """With --debug, and where a judge is down, refuses the key and repeats it, or is
    one that nobody allowed.
    """
    for name in SECRETS:
        monkeypatch.setenv(name, f"sk-marked-{name}")
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "p", "question": "q", "response": "r", "truth": "t"}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    Path("evil.yaml").write_text(RECIPE.format(reward=NAMED["url and key"]))
    said = []
    with OpenAIServer(lambda body: "reward:1", key="sk-marked-other") as server:
        down = "http://127.0.0.1:9/v1"
        typed = "nemotron:attempts=1,base_url"
        for command in (
            ("grade", "rows.jsonl", "--reward", f"{typed}={server.url}"),
            ("grade", "rows.jsonl", "--reward", f"{typed}={down}", "--out", "o.jsonl"),
            ("plan", "evil.yaml", "--json"),
            ("plan", "evil.yaml", "--set", "rewards.nemotron.key=sk-marked-typed"),
            ("run", "evil.yaml", "--with", "recipes/overlays/mini.yaml"),
            ("doctor",),
            (
                *("data", "distill", "rows.jsonl", "--out", "d.jsonl"),
                *("--teacher", "openai:m", "--base-url", server.url),
            ),
        ):
            try:
                cli.main(["--debug", *command])
            except (SystemExit, AlignError) as error:
                said.append("".join(traceback.format_exception(error)))
    out, err = capfd.readouterr()
    said += [out, err]
    said += [f.read_text() for f in tmp_path.rglob("*") if f.is_file()]
    found = [text for text in said if any(f"sk-marked-{n}" in text for n in SECRETS)]
    assert not found, found
    assert any("refused the key" in text for text in said)  # so it was sent
