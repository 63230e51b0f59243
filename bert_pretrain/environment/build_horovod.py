"""python -m bert_pretrain.environment.build_horovod [options for pip install]: compiles and installs Horovod.

It is built against this environment's TensorFlow and MPI, and NVIDIA's wheels where it is to have NCCL from them, with
changes to the sources.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bert_pretrain.environment import checked_install, facts

HOROVOD = "horovod==0.28.1"
_STREAM = r"""\1namespace stream_executor {
namespace gpu {
GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
} // namespace gpu
} // namespace stream_executor
\2"""
# In place of CMake's search for CUDA's compiler, toolkit and NCCL.
_CUDA = """
    include_directories(SYSTEM {includes})
    list(APPEND LINKER_LIBS "{cudart}")
    list(APPEND SOURCES "${{PROJECT_SOURCE_DIR}}/horovod/common/ops/cuda/{copies}")
"""
_NCCL = """
        set(NCCL_LIBRARIES "{nccl}")
        set(NCCL_MAJOR_VERSION 2)
"""
_NO_KERNELS = """
add_library(horovod_cuda_kernels INTERFACE)
add_library(compatible_horovod_cuda_kernels INTERFACE)
"""


def main(pip_options: Sequence[str]) -> None:
    """Downloads the sources, changes them for newer versions of TensorFlow, compiles and installs them."""
    import tensorflow as tf

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    with tempfile.TemporaryDirectory() as folder:
        download = [*pip, "download", "--no-deps", "--no-build-isolation", "--no-binary=horovod", "--dest", folder]
        if checked_install.is_on():
            lines = Path(folder, "requirements.txt")
            lines.write_text(checked_install.requirement(HOROVOD, checked_install.read_hashes()), encoding="utf-8")
            subprocess.run([*download, "--require-hashes", "--requirement", str(lines)], check=True)
        else:
            subprocess.run([*download, HOROVOD], check=True)
        (archive,) = Path(folder).glob("horovod-*.tar.gz")
        shutil.unpack_archive(str(archive), folder)
        sources = Path(folder, archive.name[: -len(".tar.gz")])
        version = tuple(map(int, tf.__version__.split(".")[:2]))
        if version >= (2, 16):
            leave_out_xla_operations(sources)
        if version >= (2, 21):
            define_gpu_stream(sources)
        environ = dict(os.environ)
        wheels = None if "HOROVOD_NCCL_HOME" in environ else facts.cuda_wheels()
        if tf.test.is_built_with_cuda() and (wheels or facts.has_system_nccl()):
            environ.setdefault("HOROVOD_GPU_OPERATIONS", "NCCL")
        if wheels and environ.get("HOROVOD_GPU_OPERATIONS") == "NCCL":
            headers = str(Path(folder, "headers"))
            subprocess.run([*pip, "install", "--no-deps", "--target", headers, wheels.headers], check=True)
            link_cuda_wheels(sources, wheels, Path(headers, "nvidia", "cuda_cccl", "include"))
        # A wheel in pip's cache may have been built for another MPI or TensorFlow.
        install = [*pip, "install", "--no-build-isolation", "--no-cache-dir", *pip_options, str(sources)]
        subprocess.run(install, check=True, env=environ)


def leave_out_xla_operations(sources: Path) -> None:
    """Removes xla_mpi_ops.cc from the files that CMake compiles.

    From TensorFlow 2.16 on it does not compile: it includes XLA headers that TensorFlow's package no longer has all of.
    It holds all-reduce operations for functions that XLA compiles, which are off unless HOROVOD_ENABLE_XLA_OPS=1.
    """
    path = sources / "horovod" / "tensorflow" / "CMakeLists.txt"
    text, count = re.subn(r".*xla_mpi_ops\.cc.*\n", "", path.read_text(encoding="utf-8"))
    assert count == 1, f"{path} names xla_mpi_ops.cc {count} times"
    path.write_text(text, encoding="utf-8")


def define_gpu_stream(sources: Path) -> None:
    """Defines in mpi_ops.cc the function AsGpuStreamValue, which TensorFlow's library lacks from 2.21 on.

    Horovod for GPUs could be compiled without it, but not imported. A stream tells its CUDA stream itself now.
    """
    path = sources / "horovod" / "tensorflow" / "mpi_ops.cc"
    text, count = re.subn(
        r"(#endif // TENSORFLOW_VERSION >= 2011000000\n)(#endif // HAVE_GPU\n)", _STREAM, path.read_text()
    )
    assert count == 1, f"{path} has the end of its GPU headers {count} times"
    path.write_text(text, encoding="utf-8")


def link_cuda_wheels(sources: Path, wheels: facts.CudaWheels, headers: Path) -> None:
    """Has Horovod built with the CUDA and NCCL of NVIDIA's wheels, which TensorFlow loads, too; no nvcc is needed.

    headers: a folder with those of libcu++, which CUDA's own include. Horovod's only file of CUDA code, which batches
    copies and scales, is replaced by horovod_copies.cc.
    """
    path = sources / "CMakeLists.txt"
    text = path.read_text(encoding="utf-8")
    copies = Path(__file__).with_name("horovod_copies.cc")
    includes = " ".join(f'"{include}"' for include in (*wheels.includes, headers))
    cuda = _CUDA.format(includes=includes, cudart=wheels.cudart, copies=copies.name)
    for pattern, replacement in (
        (r"(?s)include\(CheckLanguage\)\n.*?(?=macro\(ADD_CUDA\))", ""),
        (r"\n    find_package\(CUDAToolkit REQUIRED\)\n    include_directories\(.*\n", cuda),
        (r"\n        find_package\(NCCL REQUIRED\)\n", _NCCL.format(nccl=wheels.nccl)),
    ):
        text, count = re.subn(pattern, lambda match, text=replacement: text, text)
        assert count == 1, f"{path} has {pattern} {count} times"
    path.write_text(text, encoding="utf-8")
    kernels = sources / "horovod" / "common" / "ops" / "cuda"
    shutil.copy(copies, kernels)
    (kernels / "CMakeLists.txt").write_text(_NO_KERNELS, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
