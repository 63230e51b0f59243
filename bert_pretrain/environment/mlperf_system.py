"""python -m bert_pretrain.environment.mlperf_system RUN_DIR FILE: MLPerf's description of the system that a run used.

Fields that neither the run nor this machine tells are left empty; a line names them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_pretrain.system import files

# All fields that mlperf_logging.system_desc_checker asks for, in its order. All values are text.
FIELDS = """submitter division status system_name number_of_nodes host_processors_per_node host_processor_model_name
host_processor_core_count host_processor_vcpu_count host_processor_frequency host_processor_caches
host_processor_interconnect host_memory_capacity host_storage_type host_storage_capacity host_networking
host_networking_topology host_memory_configuration accelerators_per_node accelerator_model_name
accelerator_host_interconnect accelerator_frequency accelerator_on-chip_memories accelerator_memory_configuration
accelerator_memory_capacity accelerator_interconnect accelerator_interconnect_topology cooling hw_notes framework
other_software_stack operating_system sw_notes""".split()
_STATUS = {
    "onprem": "Available on-premise",
    "cloud": "Available cloud",
    "research": "Research, Development, or Internal (RDI)",
}


def describe(run: Mapping[str, Any], system_name: str) -> dict[str, str]:
    """The description; `run` is the content of run.json."""
    settings, has_gpu = run["settings"]["mlperf"], run["device"] != "cpu"
    accelerators = {} if has_gpu else {name: "N/A" for name in FIELDS if name.startswith("accelerator")}
    known = {
        **accelerators,
        **_processors(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        "submitter": settings["mlperf_submitter"],
        "division": settings["mlperf_division"],
        "status": _STATUS[settings["mlperf_status"]],
        "system_name": system_name,
        "number_of_nodes": "1" if run["ranks"] == 1 else "",
        "host_memory_capacity": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB",
        "accelerator_model_name": run["device"] if has_gpu else "N/A",
        "accelerators_per_node": "" if has_gpu else "0",
        "framework": _versions(run, "tensorflow", "horovod"),
        "other_software_stack": _versions(run, "python", "numpy", "openmpi", "bert_pretrain"),
        "operating_system": platform.platform(),
    }
    return {name: known.get(name, "") for name in FIELDS}


def _processors(cpuinfo: str) -> dict[str, str]:
    """Fields about this machine's processors, from the text of /proc/cpuinfo."""

    def values(key: str) -> list[str]:
        return re.findall(rf"^{key}\s*: (.+)$", cpuinfo, re.MULTILINE)

    names, sockets = values("model name"), set(values("physical id"))
    return {
        "host_processors_per_node": str(len(sockets) or 1),
        "host_processor_model_name": (names or [platform.machine()])[0],
        "host_processor_core_count": (values("cpu cores") or [str(os.cpu_count())])[0],
        "host_processor_vcpu_count": str(os.cpu_count()),
        "host_processor_caches": ", ".join(sorted(set(values("cache size")))),
    }


def _versions(run: Mapping[str, Any], *names: str) -> str:
    versions = run["versions"]
    return ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))


def main(arguments: Sequence[str]) -> None:
    """Writes FILE, whose name is that of the system."""
    run_dir, path = arguments
    run = json.loads((Path(run_dir) / "run.json").read_text(encoding="utf-8"))
    described = describe(run, Path(path).stem)
    files.write_json(path, described, indent=2)
    empty = [name for name, value in described.items() if not value]
    print(f"{path}: fill in what is empty: {', '.join(empty)}")


if __name__ == "__main__":
    main(sys.argv[1:])
