"""The environment block: complete, JSON, and honest about what is absent."""

import json
import shutil
import subprocess
from pathlib import Path

import torch

import verify
from verify import environment
from verify.result import ENVIRONMENT_KEYS


ROOT = Path(verify.__file__).parent.parent


def test_block_has_every_required_key_and_is_strict_json():
    block = environment.describe(seed=7)
    assert set(ENVIRONMENT_KEYS) <= set(environment.KEYS) == set(block)
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    assert block["seed"] == 7
    assert block["torch"] == torch.__version__.split("+")[0] or block["torch"] == torch.__version__


def test_absent_cuda_is_said_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda = environment.devices()[-1]
    assert cuda["device"] == "cuda"
    assert cuda["available"] is False
    assert cuda["reason"].startswith("no device on this machine")


def test_present_cuda_devices_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", "card {}".format)
    assert [item["name"] for item in environment.devices()[1:]] == ["card 0", "card 1"]
    assert environment.cuda_absence() == ""


def test_source_digest_changes_with_one_character(tmp_path):
    shutil.copytree(ROOT / "verify", tmp_path / "verify", ignore=shutil.ignore_patterns("__pycache__"))
    before = environment.source_digest(tmp_path)
    (tmp_path / "verify" / "result.py").write_text((ROOT / "verify" / "result.py").read_text() + "#")
    assert environment.source_digest(tmp_path) != before


def test_commit_is_unknown_where_the_checkout_holds_other_code(tmp_path, monkeypatch):
    def elsewhere():
        return tmp_path

    monkeypatch.setattr(environment, "_installed_root", elsewhere)
    monkeypatch.chdir(tmp_path)
    found = environment._commit("digest of something else")  # pyright: ignore[reportPrivateUsage]
    assert found == ("unknown", False)


def test_commit_is_unknown_without_git(monkeypatch):
    def absent(*arguments, **keywords):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert environment.describe()["commit"] == "unknown"


def test_the_block_says_what_the_gate_expects_of_it():
    assert set(environment.describe()) == set(environment.KEYS)
