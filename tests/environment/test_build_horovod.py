import pytest

from bert_pretrain.environment import build_horovod, pins, versions

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
