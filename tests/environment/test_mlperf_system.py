"""MLPerf's description of a system: what the run and the machine tell, and what stays empty."""

import json

import pytest

from bert_pretrain.environment import mlperf_system

PROCESSOR = "model name\t: A Processor\ncache size\t: 1024 KB\nphysical id\t: {}\ncpu cores\t: 2\n\n"
CPUINFO = "".join(PROCESSOR.format(number // 2) for number in range(4))


def run(device, ranks):
    settings = {"mlperf_submitter": "someone", "mlperf_division": "open", "mlperf_status": "cloud"}
    versions = {"tensorflow": "2.21.0", "horovod": None, "python": "3.11.1", "numpy": "2.4.6"}
    return {"settings": {"mlperf": settings}, "device": device, "ranks": ranks, "versions": versions}


def test_a_cpu_has_no_accelerators():
    found = mlperf_system.describe(run("cpu", 1), "a-system")
    assert (found["submitter"], found["division"], found["status"]) == ("someone", "open", "Available cloud")
    assert (found["number_of_nodes"], found["accelerators_per_node"], found["framework"]) == (
        "1",
        "0",
        "tensorflow 2.21.0",
    )
    assert all(found[name] for name in mlperf_system.FIELDS if name.startswith("accelerator"))
    assert found["system_name"] == "a-system" and found["cooling"] == ""


def test_what_is_not_known_of_gpus_and_hosts_stays_empty():
    found = mlperf_system.describe(run("A GPU", 16), "a-system")
    assert found["accelerator_model_name"] == "A GPU"
    assert found["number_of_nodes"] == found["accelerators_per_node"] == found["accelerator_frequency"] == ""


def test_processors():
    found = mlperf_system._processors(CPUINFO)
    assert found["host_processors_per_node"] == "2" and found["host_processor_core_count"] == "2"
    assert (found["host_processor_model_name"], found["host_processor_caches"]) == ("A Processor", "1024 KB")


def test_mlperf_s_checker_accepts_it(tmp_path, capsys):
    checker = pytest.importorskip("mlperf_logging.system_desc_checker.system_desc_checker")
    (tmp_path / "run.json").write_text(json.dumps(run("cpu", 1)))
    mlperf_system.main([str(tmp_path), str(tmp_path / "a-system.json")])
    assert checker.check_system_desc(str(tmp_path / "a-system.json"), "training", "5.0.0")[0]
    assert "fill in what is empty: host_processor_frequency" in capsys.readouterr().out
