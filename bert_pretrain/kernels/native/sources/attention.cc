// Multi-head attention of tokens that are not in rows: each example's tokens see each other and nothing else.
//
// A unit of work is one head of one example. It goes through the queries in blocks whose scores stay in a core's cache,
// so that no scores or probabilities are ever in memory; the backward pass makes them again from the logarithms of
// their sums (Dao et al. 2022). Nothing is computed for pairs of tokens of different examples, nor for padding.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "Eigen/Core"
#include "mask.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "work.h"

namespace bert_pretrain {
namespace {

using ::tensorflow::OpKernel;
using ::tensorflow::OpKernelConstruction;
using ::tensorflow::OpKernelContext;
using ::tensorflow::Tensor;
using ::tensorflow::TensorShape;

constexpr int64_t kQueries = 128;  // of a block: with 512 keys, 256 KB of scores

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Stride = Eigen::OuterStride<>;
using View = Eigen::Map<Matrix, 0, Stride>;
using ConstView = Eigen::Map<const Matrix, 0, Stride>;

// The tokens of one example: their place among the T, and their first slot, a place in a row, counted over all rows.
struct Span {
  int64_t token, slot, length;
};

// slots [T], example_ids [R, S]. An example's slots follow each other; slots with id 0 are padding and in no span.
std::vector<Span> Spans(const Tensor& slots, const Tensor& example_ids) {
  const auto slot = slots.vec<int32_t>();
  const auto id = example_ids.flat<int32_t>();
  const int64_t width = example_ids.dim_size(1);
  std::vector<Span> spans;
  for (int64_t token = 0; token < slots.NumElements(); ++token) {
    if (id(slot(token)) == 0) continue;
    const bool goes_on = !spans.empty() && slot(token) == spans.back().slot + spans.back().length &&
                         slot(token) % width != 0 && id(slot(token)) == id(slot(token) - 1);
    if (goes_on) {
      ++spans.back().length;
    } else {
      spans.push_back({token, slot(token), 1});
    }
  }
  // The longest first: the threads then end together.
  std::stable_sort(spans.begin(), spans.end(), [](const Span& one, const Span& other) {
    return one.length > other.length;
  });
  return spans;
}

// One head's query, key or value of one example, [length, D], inside a matrix whose lines hold all heads'.
ConstView Part(const Tensor& matrix, const Span& span, int64_t column, int64_t head_size) {
  const int64_t line = matrix.dim_size(1);
  return {matrix.flat<float>().data() + span.token * line + column, span.length, head_size, Stride(line)};
}

View Part(Tensor* matrix, const Span& span, int64_t column, int64_t head_size) {
  const int64_t line = matrix->dim_size(1);
  return {matrix->flat<float>().data() + span.token * line + column, span.length, head_size, Stride(line)};
}

void ClearPadding(const Tensor& slots, const Tensor& example_ids, Tensor* matrix) {
  const int64_t line = matrix->dim_size(1);
  for (int64_t token = 0; token < slots.NumElements(); ++token) {
    if (example_ids.flat<int32_t>()(slots.vec<int32_t>()(token)) == 0) {
      std::fill_n(matrix->flat<float>().data() + token * line, line, 0.0f);
    }
  }
}

// What forward and backward have in common: heads, spans, and the numbers of the masks' units.
class Attention : public OpKernel {
 public:
  explicit Attention(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_heads", &num_heads_));
    OP_REQUIRES_OK(context, context->GetAttr("dropped", &dropped_));
  }

 protected:
  // The number, in an array [R, N, S, S], of the unit for this query of the example and its own first key.
  uint32_t FirstUnit(const Span& span, int64_t head, int64_t query, int64_t width) const {
    const int64_t row = span.slot / width, column = span.slot % width;
    return static_cast<uint32_t>(((row * num_heads_ + head) * width + column + query) * width + column);
  }

  int64_t num_heads_, dropped_;
};

class AttentionForward : public Attention {
 public:
  using Attention::Attention;

  void Compute(OpKernelContext* context) override {
    const Tensor &projected = context->input(0), &slots = context->input(1), &example_ids = context->input(2);
    const Mask mask(context->input(3), dropped_);
    const int64_t num_tokens = projected.dim_size(0), hidden = projected.dim_size(1) / 3;
    Tensor *output = nullptr, *log_sums = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({num_tokens, hidden}), &output));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({num_heads_, num_tokens}), &log_sums));
    ClearPadding(slots, example_ids, output);
    const std::vector<Span> spans = Spans(slots, example_ids);
    ForEachUnit(context, spans.size() * num_heads_, [&](int64_t unit) {
      const Span& span = spans[unit / num_heads_];
      const int64_t head = unit % num_heads_, width = example_ids.dim_size(1);
      OneHead(projected, span, head, width, mask, output, log_sums->matrix<float>().data() + head * num_tokens);
    });
  }

 private:
  void OneHead(const Tensor& projected, const Span& span, int64_t head, int64_t width, const Mask& mask,
               Tensor* output, float* log_sums) const {
    const int64_t hidden = projected.dim_size(1) / 3, size = hidden / num_heads_, column = head * size;
    const auto query = Part(projected, span, column, size), key = Part(projected, span, hidden + column, size),
               value = Part(projected, span, 2 * hidden + column, size);
    auto context = Part(output, span, column, size);
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    Matrix scores(std::min(kQueries, span.length), span.length);
    for (int64_t first = 0; first < span.length; first += kQueries) {
      const int64_t count = std::min(kQueries, span.length - first);
      auto block = scores.topRows(count);
      block.noalias() = scale * query.middleRows(first, count) * key.transpose();
      for (int64_t line = 0; line < count; ++line) {
        auto row = block.row(line).array();
        const float most = row.maxCoeff();
        row = (row - most).exp();
        const float sum = row.sum();
        log_sums[span.token + first + line] = most + std::log(sum);
        row *= 1.0f / sum;
        mask.Apply(FirstUnit(span, head, first + line, width), span.length, row.data(), row.data());
      }
      context.middleRows(first, count).noalias() = block * value;
    }
  }
};

class AttentionBackward : public Attention {
 public:
  using Attention::Attention;

  void Compute(OpKernelContext* context) override {
    const Tensor &projected = context->input(0), &slots = context->input(1), &example_ids = context->input(2);
    const Mask mask(context->input(3), dropped_);
    const Inputs inputs{projected, context->input(4), context->input(5), context->input(6)};
    Tensor* gradient = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, projected.shape(), &gradient));
    ClearPadding(slots, example_ids, gradient);
    const std::vector<Span> spans = Spans(slots, example_ids);
    ForEachUnit(context, spans.size() * num_heads_, [&](int64_t unit) {
      OneHead(inputs, spans[unit / num_heads_], unit % num_heads_, example_ids.dim_size(1), mask, gradient);
    });
  }

 private:
  struct Inputs {
    const Tensor &projected, &context, &log_sums, &upstream;
  };

  void OneHead(const Inputs& inputs, const Span& span, int64_t head, int64_t width, const Mask& mask,
               Tensor* gradient) const {
    const int64_t hidden = inputs.projected.dim_size(1) / 3, size = hidden / num_heads_, column = head * size;
    const auto query = Part(inputs.projected, span, column, size),
               key = Part(inputs.projected, span, hidden + column, size),
               value = Part(inputs.projected, span, 2 * hidden + column, size);
    const auto context = Part(inputs.context, span, column, size), upstream = Part(inputs.upstream, span, column, size);
    auto to_query = Part(gradient, span, column, size), to_key = Part(gradient, span, hidden + column, size),
         to_value = Part(gradient, span, 2 * hidden + column, size);
    const float* log_sums = inputs.log_sums.matrix<float>().data() + head * inputs.log_sums.dim_size(1) + span.token;
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    to_key.setZero();
    to_value.setZero();
    Matrix all_probabilities(std::min(kQueries, span.length), span.length);
    Matrix all_to_scores(std::min(kQueries, span.length), span.length);
    for (int64_t first = 0; first < span.length; first += kQueries) {
      const int64_t count = std::min(kQueries, span.length - first);
      auto probabilities = all_probabilities.topRows(count), to_scores = all_to_scores.topRows(count);
      probabilities.noalias() = scale * query.middleRows(first, count) * key.transpose();
      to_scores.noalias() = upstream.middleRows(first, count) * value.transpose();
      for (int64_t line = 0; line < count; ++line) {
        auto row = probabilities.row(line).array();
        row = (row - log_sums[first + line]).exp();
        // The sum of a row's probabilities times their gradients, without a pass over them (Dao et al. 2022, B.2).
        const float along = context.row(first + line).dot(upstream.row(first + line));
        const uint32_t unit = FirstUnit(span, head, first + line, width);
        ThroughSoftmax(mask, unit, span.length, along, scale, row.data(), to_scores.row(line).data());
      }
      to_value.noalias() += probabilities.transpose() * upstream.middleRows(first, count);
      to_query.middleRows(first, count).noalias() = to_scores * key;
      to_key.noalias() += to_scores.transpose() * query.middleRows(first, count);
    }
  }

  // probabilities become the dropped ones; the gradient to the dropped ones becomes that to the unscaled scores.
  static void ThroughSoftmax(Mask mask, uint32_t first_unit, int64_t count, float along, float scale,
                             float* __restrict probabilities, float* __restrict gradient) {
    if (!mask.drops()) {
      for (int64_t key = 0; key < count; ++key) gradient[key] = probabilities[key] * (gradient[key] - along) * scale;
      return;
    }
    for (int64_t key = 0; key < count; ++key) {
      const float factor = mask(first_unit + static_cast<uint32_t>(key)), probability = probabilities[key];
      gradient[key] = probability * (gradient[key] * factor - along) * scale;
      probabilities[key] = probability * factor;
    }
  }
};

REGISTER_OP("BertPretrainAttention")
    .Input("projected: float")      // [T, 3H]: query, key, value
    .Input("slots: int32")          // [T]
    .Input("example_ids: int32")    // [R, S]
    .Input("key: uint32")           // [2], the mask's
    .Attr("num_heads: int")
    .Attr("dropped: int")           // of 2^32
    .Output("context: float")       // [T, H]
    .Output("log_sums: float")      // [N, T], of the scores' exponentials
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      int64_t num_heads;
      TF_RETURN_IF_ERROR(context->GetAttr("num_heads", &num_heads));
      const auto tokens = context->Dim(context->input(0), 0);
      tensorflow::shape_inference::DimensionHandle hidden;
      TF_RETURN_IF_ERROR(context->Divide(context->Dim(context->input(0), 1), 3, true, &hidden));
      context->set_output(0, context->Matrix(tokens, hidden));
      context->set_output(1, context->Matrix(num_heads, tokens));
      return tensorflow::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertPretrainAttention").Device(tensorflow::DEVICE_CPU), AttentionForward);

REGISTER_OP("BertPretrainAttentionGradient")
    .Input("projected: float")
    .Input("slots: int32")
    .Input("example_ids: int32")
    .Input("key: uint32")
    .Input("context: float")
    .Input("log_sums: float")
    .Input("upstream: float")  // [T, H]
    .Attr("num_heads: int")
    .Attr("dropped: int")
    .Output("gradient: float")  // [T, 3H]
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainAttentionGradient").Device(tensorflow::DEVICE_CPU), AttentionBackward);

}  // namespace
}  // namespace bert_pretrain
