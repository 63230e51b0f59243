import importlib.util
import subprocess
import sys

import pytest

from bert_pretrain.environment import facts


@pytest.mark.parametrize(
    ("answer", "code", "requested", "kept"),
    [
        ("2.15.1 1", 0, "", "2.15.1"),
        ("2.15.1 0", 0, "", None),
        ("2.6.5+corex.3.1 0", 0, "", "2.6.5+corex.3.1"),  # a vendor's build is kept without a visible GPU
        ("2.6.5+corex.3.1 0", 0, "2.6.5", "2.6.5+corex.3.1"),
        ("2.6.5+corex.3.1 8", 0, "2.15.1", None),
        ("2.21.0 8", 0, "", "2.21.0"),
        ("2.5.3 8", 0, "", None),
        ("2.22.0 8", 0, "", None),
        ("no such symbol", 1, "", None),
    ],
)
def test_a_supported_tensorflow_for_gpus_or_of_a_vendor_is_kept(monkeypatch, answer, code, requested, kept):
    done = subprocess.CompletedProcess([], code, stdout=answer, stderr=answer)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(facts, "installed", lambda: {"tensorflow": answer.split()[0]})
    assert facts.tensorflow_for_gpus(requested) == kept


def test_a_tensorflow_that_is_not_kept_is_named_with_the_reason(monkeypatch, capsys):
    done = subprocess.CompletedProcess([], 0, stdout="2.5.3 8", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(facts, "installed", lambda: {"tensorflow": "2.5.3"})
    facts.tensorflow_for_gpus("")
    assert "has TensorFlow 2.5.3 for GPUs; supported are 2.6.5 to 2.21.0; not used" in capsys.readouterr().err


def test_the_tensorflow_for_cpus_is_not_even_imported(monkeypatch):
    monkeypatch.setattr(facts, "installed", lambda: {"tensorflow-cpu": "2.15.1"})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started"))
    assert facts.tensorflow_for_gpus("") is None


@pytest.mark.parametrize(
    ("installed", "version"),
    [({"tensorflow-cpu": "2.13.1"}, "2.13.1"), ({"tensorflow": "2.4.0"}, None), ({"numpy": "2.0"}, None)],
)
def test_the_installed_version_is_read_without_importing_it(monkeypatch, installed, version):
    monkeypatch.setattr(facts, "installed", lambda: installed)
    assert facts.tensorflow_version() == version


def test_nccl_and_cuda_are_found_in_wheels_where_all_parts_are_there(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(facts, "installed", lambda: {"nvidia-cuda-runtime-cu12": "12.9.79", "numpy": "2.0"})
    for name, library in (("cuda_runtime", "libcudart.so.12"), ("cuda_nvcc", ""), ("nccl", "libnccl.so.2")):
        assert facts.cuda_wheels() is None
        (tmp_path / "nvidia" / name / "lib").mkdir(parents=True)
        if library:
            (tmp_path / "nvidia" / name / "lib" / library).touch()
    found = facts.cuda_wheels()
    assert found.nccl == str(tmp_path / "nvidia/nccl/lib/libnccl.so.2") and found.cudart.endswith("libcudart.so.12")
    assert found.headers.startswith("nvidia-cuda-cccl-cu12==")
    assert [path.split("/")[-2] for path in found.includes] == ["cuda_runtime", "nccl", "cuda_nvcc"]
    monkeypatch.setattr(facts, "installed", lambda: {"numpy": "2.0"})
    assert facts.cuda_wheels() is None
