// Examples among unpadded tokens: where each one lies, and views of one head's part of it.

#ifndef BERT_PRETRAIN_EXAMPLES_H_
#define BERT_PRETRAIN_EXAMPLES_H_

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "Eigen/Core"
#include "tensorflow/core/framework/op_kernel.h"

namespace bert_pretrain {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Stride = Eigen::OuterStride<>;
using View = Eigen::Map<Matrix, 0, Stride>;
using ConstView = Eigen::Map<const Matrix, 0, Stride>;

// The tokens of one example: the first one's index among the T tokens, its slot in the rows, and their number.
struct Example {
  int64_t token, slot, length;
};

// The examples of slots [T] in rows of example_ids [R, S], the longest first so that all threads end at about the same
// time. The slots of an example are consecutive. Slots with id 0 are padding and belong to no example.
inline std::vector<Example> FindExamples(const tensorflow::Tensor& slots, const tensorflow::Tensor& example_ids) {
  const auto slot = slots.vec<int32_t>();
  const auto id = example_ids.flat<int32_t>();
  const int64_t width = example_ids.dim_size(1);
  std::vector<Example> examples;
  for (int64_t token = 0; token < slots.NumElements(); ++token) {
    if (id(slot(token)) == 0) continue;
    const bool continues = !examples.empty() && slot(token) == examples.back().slot + examples.back().length &&
                           slot(token) % width != 0 && id(slot(token)) == id(slot(token) - 1);
    if (continues) {
      ++examples.back().length;
    } else {
      examples.push_back({token, slot(token), 1});
    }
  }
  std::stable_sort(examples.begin(), examples.end(), [](const Example& one, const Example& other) {
    return one.length > other.length;
  });
  return examples;
}

// One head's query, key or value of one example, [length, head_size], in a matrix whose rows hold those of all heads.
inline ConstView HeadOf(const tensorflow::Tensor& matrix, const Example& example, int64_t column, int64_t head_size) {
  const int64_t width = matrix.dim_size(1);
  return {matrix.flat<float>().data() + example.token * width + column, example.length, head_size, Stride(width)};
}

inline View HeadOf(tensorflow::Tensor* matrix, const Example& example, int64_t column, int64_t head_size) {
  const int64_t width = matrix->dim_size(1);
  return {matrix->flat<float>().data() + example.token * width + column, example.length, head_size, Stride(width)};
}

// One head's query, key and value of one example in a matrix [T, 3H]; `column` is the head's first of H columns.
template <typename Qkv>
auto SplitQkv(Qkv& qkv, const Example& example, int64_t hidden, int64_t column, int64_t head_size) {
  return std::make_tuple(HeadOf(qkv, example, column, head_size), HeadOf(qkv, example, hidden + column, head_size),
                         HeadOf(qkv, example, 2 * hidden + column, head_size));
}

// Sets the rows of padding to zero; matrix [T, X].
inline void ClearPadding(const tensorflow::Tensor& slots, const tensorflow::Tensor& example_ids,
                         tensorflow::Tensor* matrix) {
  const int64_t width = matrix->dim_size(1);
  for (int64_t token = 0; token < slots.NumElements(); ++token) {
    if (example_ids.flat<int32_t>()(slots.vec<int32_t>()(token)) == 0) {
      std::fill_n(matrix->flat<float>().data() + token * width, width, 0.0f);
    }
  }
}

}  // namespace bert_pretrain

#endif  // BERT_PRETRAIN_EXAMPLES_H_
