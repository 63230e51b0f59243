import shutil
import subprocess
from pathlib import Path

import pytest

from bert_pretrain.environment import build_horovod, pins, versions
from bert_pretrain.environment.facts import CudaWheels

LINES = """# TF SOURCES
list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/mpi_ops.cc")
list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")

# Create library
"""


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "horovod/tensorflow").mkdir(parents=True)
    (tmp_path / "horovod/tensorflow/CMakeLists.txt").write_text(LINES)
    return tmp_path


def test_one_file_is_left_out_of_the_build(sources):
    build_horovod.leave_out_xla_operations(sources)
    left = (sources / "horovod/tensorflow/CMakeLists.txt").read_text().splitlines()
    assert left == [line for line in LINES.splitlines() if "xla_mpi_ops" not in line]


def test_sources_that_do_not_name_the_file_are_refused(sources):
    build_horovod.leave_out_xla_operations(sources)
    with pytest.raises(AssertionError, match=r"CMakeLists\.txt names xla_mpi_ops\.cc 0 times"):
        build_horovod.leave_out_xla_operations(sources)


def test_every_file_of_pins_names_the_horovod_that_is_built():
    for python, tested in versions.TESTED.items():
        for version in tested:
            assert build_horovod.HOROVOD in pins.pins(version, python).splitlines()


def test_the_stream_of_a_gpu_is_defined_after_its_headers(sources):
    headers = (
        '#if HAVE_GPU\n#include "stream.h"\n#endif // TENSORFLOW_VERSION >= 2011000000\n#endif // HAVE_GPU\nrest\n'
    )
    path = sources / "horovod/tensorflow/mpi_ops.cc"
    path.write_text(headers)
    build_horovod.define_gpu_stream(sources)
    before, defined, after = path.read_text().partition("GpuStreamHandle AsGpuStreamValue(Stream* stream) {")
    assert (
        before.startswith('#if HAVE_GPU\n#include "stream.h"\n') and defined and after.endswith("// HAVE_GPU\nrest\n")
    )


SEARCHES = """# CUDA
include(CheckLanguage)
check_language(CUDA)
enable_language(CUDA)

macro(ADD_CUDA)
    find_package(CUDAToolkit REQUIRED)
    include_directories(SYSTEM ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    add_definitions(-DHAVE_CUDA=1 -DHAVE_GPU=1)
endmacro()
    else()
        find_package(NCCL REQUIRED)
        list(APPEND LINKER_LIBS ${NCCL_LIBRARIES})
"""


def test_nccl_of_wheels_is_linked_without_a_search_for_cuda_s_compiler(sources):
    kernels = sources / "horovod/common/ops/cuda"
    kernels.mkdir(parents=True)
    (sources / "CMakeLists.txt").write_text(SEARCHES)
    wheels = CudaWheels(["/env/a cuda/include", "/env/nccl/include"], "/env/libcudart.so.12", "/env/libnccl.so.2", "")
    build_horovod.link_cuda_wheels(sources, wheels, sources / "headers")
    text = (sources / "CMakeLists.txt").read_text()
    for gone in ("CheckLanguage", "enable_language", "find_package"):
        assert gone not in text
    for path in (*wheels.includes, wheels.cudart, wheels.nccl, sources / "headers"):
        assert f'"{path}"' in text
    assert "${PROJECT_SOURCE_DIR}/horovod/common/ops/cuda/horovod_copies.cc" in text
    assert text.index("macro(ADD_CUDA)") < text.index("libcudart") < text.index("HAVE_CUDA=1")
    assert (kernels / "horovod_copies.cc").exists() and "INTERFACE" in (kernels / "CMakeLists.txt").read_text()
    with pytest.raises(AssertionError, match="0 times"):
        build_horovod.link_cuda_wheels(sources, wheels, sources / "headers")


# What stands for Horovod's header and CUDA's runtime: copies within the host's memory, and a stream that fails.
HEADER = """
#include <cstdint>
#include <cstring>
#include <string>
typedef int cudaError_t;
typedef const char* cudaStream_t;
enum { cudaSuccess = 0, cudaMemcpyDeviceToDevice = 3 };
inline const char* cudaGetErrorString(cudaError_t) { return "a stream that fails"; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, cudaStream_t stream) {
  if (stream != nullptr || kind != cudaMemcpyDeviceToDevice) return 1;
  std::memcpy(to, from, size);
  return cudaSuccess;
}
namespace horovod {
namespace common {
enum DataType { HOROVOD_FLOAT32 };
struct BatchedD2DParams { void* out[160]; void* in[160]; size_t sizes[160]; };
} // namespace common
} // namespace horovod
"""
PROGRAM = """
#include "horovod_copies.cc"
#include <cstdio>
using namespace horovod::common;
template <class Call> void report(Call call) {
  try { call(); std::puts("nothing"); } catch (const std::exception& error) { std::puts(error.what()); }
}
int main() {
  char from[] = "abcdef", to[8] = "......";
  BatchedD2DParams params;
  for (int i = 0; i < 3; ++i) { params.in[i] = from + i; params.out[i] = to + 2 * i; params.sizes[i] = 2; }
  BatchedD2DMemcpyCudaImpl(params, 2, nullptr);
  std::puts(to);
  report([&] { BatchedD2DMemcpyCudaImpl(params, 1, "broken"); });
  report([&] { ScaleBufferCudaImpl(from, to, 1, 0.5, HOROVOD_FLOAT32, nullptr); });
  report([&] { BatchedScaledD2DMemcpyCudaImpl(params, 1, 0.5, HOROVOD_FLOAT32, nullptr); });
}
"""


def test_a_batch_is_copied_piece_by_piece_and_scaling_is_refused(tmp_path):
    compiler = shutil.which("g++") or pytest.skip("no g++")
    (tmp_path / "cuda_kernels.h").write_text(HEADER)
    (tmp_path / "main.cc").write_text(PROGRAM)
    shutil.copy(Path(build_horovod.__file__).with_name("horovod_copies.cc"), tmp_path)
    command = [compiler, "-std=c++14", "-Wall", "-Werror", "-o", str(tmp_path / "main"), str(tmp_path / "main.cc")]
    subprocess.run(command, check=True)
    copied, failed, *scaled = subprocess.run([tmp_path / "main"], stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert copied == "abbc.." and failed.endswith("a stream that fails")
    assert len(scaled) == 2 and all("op=hvd.Sum" in line for line in scaled)
