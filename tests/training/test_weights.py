"""What names a model's weights: refused in one line before any library is loaded; safetensors alone are read."""

import shlex
import shutil
import subprocess
import sys

import pytest

from stages.base.errors import InputError
from stages.training.weights import check_checkpoint, checkpoint_fingerprint


@pytest.mark.parametrize("name", ["./enc", "/no/such", "~/enc", "a/b/c", "enc/", "here/enc", "..\\enc"])
def test_a_path_that_leads_nowhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(InputError, match="--encoder .*: no such directory"):
        check_checkpoint(name, "--encoder")


def test_what_a_hub_may_know_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("bert-base-uncased", "google-bert/bert-base-uncased"):
        check_checkpoint(name, "--encoder")


@pytest.mark.slow
def test_a_directory_without_weights_and_a_file(tmp_path, bert):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds no \*.safetensors; give"):
        check_checkpoint(str(tmp_path), "--encoder")
    with pytest.raises(InputError, match="a file; give the directory"):
        check_checkpoint(str(tmp_path / "config.json"), "--encoder")
    check_checkpoint(str(bert), "--encoder")


def with_bin(bert, folder):
    """The checkpoint `bert` with its weights in pytorch_model.bin."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(bert, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.slow
def test_a_bin_is_refused_and_the_command_that_is_named_converts_it(bert, tmp_path):
    folder = with_bin(bert, tmp_path / "it's old")
    with pytest.raises(InputError, match="convert them once: python -c ") as refused:
        check_checkpoint(str(folder), "--encoder")
    assert "\n" not in str(refused.value)
    python, *arguments = shlex.split(str(refused.value).rpartition("convert them once: ")[2])
    assert python == "python"
    subprocess.run([sys.executable, *arguments], check=True)
    check_checkpoint(str(folder), "--encoder")

    from stages.text_encoder.model import encode, load_encoder

    ours, theirs = (encode(*load_encoder(str(f)), ["three oranges"]) for f in (folder, bert))
    assert (ours == theirs).all()


def test_a_bin_beside_safetensors_is_neither_loaded_nor_in_the_key(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "both")
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    from stages.text_encoder.model import load_encoder

    load_encoder(str(folder))
    assert checkpoint_fingerprint(str(folder)) == checkpoint_fingerprint(str(bert))


def test_sharded_bins_name_the_other_way(tmp_path):
    for n in (1, 2):
        (tmp_path / f"pytorch_model-0000{n}-of-00002.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pytorch_model-00001-of-00002.bin.* write it with save_pretrained"):
        check_checkpoint(str(tmp_path), "--backbone")


def test_the_packaged_encoder_passes():
    from stages.text_encoder.config import encoder_fingerprint

    assert len(encoder_fingerprint("minilm")) == 32


@pytest.mark.parametrize(
    ("config", "said"),
    [(None, "holds no config.json"), ("{}", "names no model_type"), ("{", "cannot be read"), ("3", "cannot be read")],
)
def test_an_encoder_needs_its_configuration(config, said, bert, tmp_path):
    from stages.text_encoder.config import encoder_fingerprint

    folder = shutil.copytree(bert, tmp_path / "enc")
    (folder / "config.json").unlink()
    if config:
        (folder / "config.json").write_text(config)
    with pytest.raises(InputError, match=said):
        encoder_fingerprint(str(folder))


def test_auto_is_resolved_and_names_are_checked_without_torch():
    """In a process of its own, since this one has imported torch."""
    code = """
import sys
from stages.base.errors import InputError
from stages.training.torch_setup import resolved_precision
assert resolved_precision("cpu", "fp32") == ("cpu", "fp32")
assert resolved_precision("cpu", "bf16") == ("cpu", "bf16")
assert resolved_precision("cpu", "auto")[1] in ("fp32", "bf16")
for wrong in (("gpu", "auto"), ("cpu", "half")):
    try:
        resolved_precision(*wrong)
    except InputError as e:
        print(e)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "--device gpu: expected auto, cpu, cuda or cuda:NUMBER",
        "--precision half: expected auto, fp32 or bf16",
    ]


def test_auto_is_what_the_processor_has(monkeypatch):
    from stages.training import torch_setup

    for has, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch_setup, "has_bf16", lambda device, has=has: has)
        assert torch_setup.resolved_precision("cpu", "auto") == ("cpu", precision)
