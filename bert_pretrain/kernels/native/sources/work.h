// Dividing work among the session's threads.

#ifndef BERT_PRETRAIN_WORK_H_
#define BERT_PRETRAIN_WORK_H_

#include <algorithm>
#include <cstdint>
#include <functional>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/lib/core/threadpool.h"

namespace bert_pretrain {

// Calls work(unit) for each of 0 .. num_units - 1, on all intra-op threads. A unit is done by one thread and in one
// piece, and results must not depend on which: that is what makes them the same bits with any number of threads.
inline void ForEachUnit(tensorflow::OpKernelContext* context, int64_t num_units,
                        const std::function<void(int64_t)>& work) {
  constexpr int64_t kOwnTask = 1 << 20;  // cycles a unit: so many that none share a task, and threads stay busy
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
      num_units, kOwnTask, [&work](int64_t first, int64_t last) {
        for (int64_t unit = first; unit < last; ++unit) work(unit);
      });
}

constexpr int64_t kBlock = 16384;  // elements: a block of each of four arrays fits a core's cache

inline int64_t NumBlocks(int64_t size, int64_t block_size) { return (size + block_size - 1) / block_size; }

// The same for `size` things, a block of them at a time: work(first, how many, number of the block).
template <typename Work>
void ForEachBlock(tensorflow::OpKernelContext* context, int64_t size, int64_t block_size, const Work& work) {
  ForEachUnit(context, NumBlocks(size, block_size), [&](int64_t block) {
    work(block * block_size, std::min(block_size, size - block * block_size), block);
  });
}

}  // namespace bert_pretrain

#endif  // BERT_PRETRAIN_WORK_H_
