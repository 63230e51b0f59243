// Horovod's copies on a GPU without kernels of its own, in place of its cuda_kernels.cu where no CUDA compiler is at hand.
//
// A batch of copies is a copy each: some more launches an update, the same bytes. Scaling needs a kernel; bert_pretrain
// only sums, so that Horovod never scales for it. A program that asks for an average ends with the reason.

#include "cuda_kernels.h"

#include <stdexcept>
#include <string>

namespace horovod {
namespace common {

namespace {

[[noreturn]] void RefuseToScale() {
  throw std::logic_error("Horovod was built without CUDA's compiler and cannot scale on a GPU: use op=hvd.Sum");
}

} // namespace

void BatchedD2DMemcpyCudaImpl(BatchedD2DParams& params, int num_copies, cudaStream_t stream) {
  for (int copy = 0; copy < num_copies; ++copy) {
    const cudaError_t error = cudaMemcpyAsync(params.out[copy], params.in[copy], params.sizes[copy],
                                              cudaMemcpyDeviceToDevice, stream);
    if (error != cudaSuccess) {
      throw std::runtime_error(std::string("cudaMemcpyAsync failed: ") + cudaGetErrorString(error));
    }
  }
}

void ScaleBufferCudaImpl(const void*, void*, const int64_t, double, DataType, cudaStream_t) { RefuseToScale(); }

void BatchedScaledD2DMemcpyCudaImpl(BatchedD2DParams&, int, double, DataType, cudaStream_t) { RefuseToScale(); }

} // namespace common
} // namespace horovod
