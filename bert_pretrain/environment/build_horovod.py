"""python -m bert_pretrain.environment.build_horovod [options for pip install]: compiles and installs Horovod.

It is built against this environment's TensorFlow and MPI, with two changes to the sources.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bert_pretrain.environment import checked_install

HOROVOD = "horovod==0.28.1"
_STREAM = r"""\1namespace stream_executor {
namespace gpu {
GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
} // namespace gpu
} // namespace stream_executor
\2"""


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
        # A wheel in pip's cache may have been built for another MPI or TensorFlow.
        install = [*pip, "install", "--no-build-isolation", "--no-cache-dir", *pip_options, str(sources)]
        subprocess.run(install, check=True)


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


if __name__ == "__main__":
    main(sys.argv[1:])
