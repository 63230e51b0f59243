// Dividing work among the session's intra-op threads.

#ifndef BERT_PRETRAIN_WORK_H_
#define BERT_PRETRAIN_WORK_H_

#include <algorithm>
#include <cstdint>
#include <functional>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/lib/core/threadpool.h"

namespace bert_pretrain {

// Calls work(unit) for each unit from 0 to num_units - 1 on all intra-op threads. One thread does a unit as a whole,
// and its result must not depend on which thread that is: so any number of threads gives the same bits.
inline void ForEachUnit(tensorflow::OpKernelContext* context, int64_t num_units,
                        const std::function<void(int64_t)>& work) {
  constexpr int64_t kCyclesPerUnit = 1 << 20;  // an overestimate, so that ParallelFor makes a task of each unit
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
      num_units, kCyclesPerUnit, [&work](int64_t first, int64_t last) {
        for (int64_t unit = first; unit < last; ++unit) work(unit);
      });
}

constexpr int64_t kBlock = 16384;  // elements: blocks of four float arrays fit into a core's L2 cache

inline int64_t NumBlocks(int64_t size, int64_t block_size) { return (size + block_size - 1) / block_size; }

// Divides `size` elements into blocks and calls work(first element, number of elements, block) for each block.
template <typename Work>
void ForEachBlock(tensorflow::OpKernelContext* context, int64_t size, int64_t block_size, const Work& work) {
  ForEachUnit(context, NumBlocks(size, block_size), [&](int64_t block) {
    work(block * block_size, std::min(block_size, size - block * block_size), block);
  });
}

}  // namespace bert_pretrain

#endif  // BERT_PRETRAIN_WORK_H_
