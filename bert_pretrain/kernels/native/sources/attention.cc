// Multi-head attention of unpadded tokens: each token sees the tokens of its own example.
//
// A unit of work is one head of one example. It computes the queries in blocks whose scores fit into a core's cache, so
// that scores and probabilities are never stored in memory; the backward pass computes them again from log_sums, the
// logarithms of the softmax denominators (Dao et al. 2022, arXiv:2205.14135). Nothing is computed for pairs of tokens
// of different examples, nor for padding.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "examples.h"
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

constexpr int64_t kQueriesPerBlock = 128;  // with 512 keys, 256 KB of scores

// What forward and backward share: the attributes, and the numbers of the mask's units.
class Attention : public OpKernel {
 public:
  explicit Attention(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_heads", &num_heads_));
    OP_REQUIRES_OK(context, context->GetAttr("num_dropped", &num_dropped_));
  }

 protected:
  // The number in an array [R, N, S, S] of the unit of this query (counted in its example) and its example's first key.
  uint32_t FirstUnit(const Example& example, int64_t head, int64_t query, int64_t width) const {
    const int64_t row = example.slot / width, column = example.slot % width;
    return static_cast<uint32_t>(((row * num_heads_ + head) * width + column + query) * width + column);
  }

  int64_t num_heads_, num_dropped_;
};

class AttentionForward : public Attention {
 public:
  using Attention::Attention;

  void Compute(OpKernelContext* context) override {
    const Tensor &qkv = context->input(0), &slots = context->input(1), &example_ids = context->input(2);
    const Mask mask(context->input(3), num_dropped_);
    const int64_t num_tokens = qkv.dim_size(0), hidden = qkv.dim_size(1) / 3;
    Tensor *output = nullptr, *log_sums = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({num_tokens, hidden}), &output));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({num_heads_, num_tokens}), &log_sums));
    ClearPadding(slots, example_ids, output);
    const std::vector<Example> examples = FindExamples(slots, example_ids);
    ForEachUnit(context, examples.size() * num_heads_, [&](int64_t unit) {
      const Example& example = examples[unit / num_heads_];
      const int64_t head = unit % num_heads_, width = example_ids.dim_size(1);
      OneHead(qkv, example, head, width, mask, output, log_sums->matrix<float>().data() + head * num_tokens);
    });
  }

 private:
  void OneHead(const Tensor& qkv, const Example& example, int64_t head, int64_t width, const Mask& mask,
               Tensor* output, float* log_sums) const {
    const int64_t hidden = qkv.dim_size(1) / 3, size = hidden / num_heads_, column = head * size;
    const auto [query, key, value] = SplitQkv(qkv, example, hidden, column, size);
    auto context = HeadOf(output, example, column, size);
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    Matrix scores(std::min(kQueriesPerBlock, example.length), example.length);
    for (int64_t first = 0; first < example.length; first += kQueriesPerBlock) {
      const int64_t count = std::min(kQueriesPerBlock, example.length - first);
      auto block = scores.topRows(count);
      block.noalias() = scale * query.middleRows(first, count) * key.transpose();
      for (int64_t line = 0; line < count; ++line) {
        auto row = block.row(line).array();
        const float largest = row.maxCoeff();
        row = (row - largest).exp();
        const float sum = row.sum();
        log_sums[example.token + first + line] = largest + std::log(sum);
        row *= 1.0f / sum;
        mask.Apply(FirstUnit(example, head, first + line, width), example.length, row.data(), row.data());
      }
      context.middleRows(first, count).noalias() = block * value;
    }
  }
};

class AttentionBackward : public Attention {
 public:
  using Attention::Attention;

  void Compute(OpKernelContext* context) override {
    const Tensor &qkv = context->input(0), &slots = context->input(1), &example_ids = context->input(2);
    const Mask mask(context->input(3), num_dropped_);
    const Inputs inputs{qkv, context->input(4), context->input(5), context->input(6)};
    Tensor* grad_qkv = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, qkv.shape(), &grad_qkv));
    ClearPadding(slots, example_ids, grad_qkv);
    const std::vector<Example> examples = FindExamples(slots, example_ids);
    ForEachUnit(context, examples.size() * num_heads_, [&](int64_t unit) {
      OneHead(inputs, examples[unit / num_heads_], unit % num_heads_, example_ids.dim_size(1), mask, grad_qkv);
    });
  }

 private:
  struct Inputs {
    const Tensor &qkv, &context, &log_sums, &grad_context;
  };

  void OneHead(const Inputs& inputs, const Example& example, int64_t head, int64_t width, const Mask& mask,
               Tensor* grad_qkv) const {
    const Tensor& qkv = inputs.qkv;
    const int64_t hidden = qkv.dim_size(1) / 3, size = hidden / num_heads_, column = head * size;
    const auto [query, key, value] = SplitQkv(qkv, example, hidden, column, size);
    const auto context = HeadOf(inputs.context, example, column, size);
    const auto grad_context = HeadOf(inputs.grad_context, example, column, size);
    auto [grad_query, grad_key, grad_value] = SplitQkv(grad_qkv, example, hidden, column, size);
    const float* log_sums = inputs.log_sums.matrix<float>().data() + head * inputs.log_sums.dim_size(1) + example.token;
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    grad_key.setZero();
    grad_value.setZero();
    Matrix all_probabilities(std::min(kQueriesPerBlock, example.length), example.length);
    Matrix all_grad_scores(std::min(kQueriesPerBlock, example.length), example.length);
    for (int64_t first = 0; first < example.length; first += kQueriesPerBlock) {
      const int64_t count = std::min(kQueriesPerBlock, example.length - first);
      auto probabilities = all_probabilities.topRows(count), grad_scores = all_grad_scores.topRows(count);
      probabilities.noalias() = scale * query.middleRows(first, count) * key.transpose();
      grad_scores.noalias() = grad_context.middleRows(first, count) * value.transpose();
      for (int64_t line = 0; line < count; ++line) {
        auto row = probabilities.row(line).array();
        row = (row - log_sums[first + line]).exp();
        // The sum over the row of probabilities times their gradients (Dao et al. 2022, appendix B.2).
        const float row_sum = context.row(first + line).dot(grad_context.row(first + line));
        const uint32_t unit = FirstUnit(example, head, first + line, width);
        SoftmaxGradient(mask, unit, example.length, row_sum, scale, row.data(), grad_scores.row(line).data());
      }
      grad_value.noalias() += probabilities.transpose() * grad_context.middleRows(first, count);
      grad_query.middleRows(first, count).noalias() = grad_scores * key;
      grad_key.noalias() += grad_scores.transpose() * query.middleRows(first, count);
    }
  }

  // One row, in place: probabilities become the dropped ones; their gradient becomes that of the scores before scaling.
  static void SoftmaxGradient(Mask mask, uint32_t first_unit, int64_t count, float row_sum, float scale,
                              float* __restrict probabilities, float* __restrict gradient) {
    if (!mask.drops()) {
      for (int64_t key = 0; key < count; ++key) gradient[key] = probabilities[key] * (gradient[key] - row_sum) * scale;
      return;
    }
    for (int64_t key = 0; key < count; ++key) {
      const float factor = mask(first_unit + static_cast<uint32_t>(key)), probability = probabilities[key];
      gradient[key] = probability * (gradient[key] * factor - row_sum) * scale;
      probabilities[key] = probability * factor;
    }
  }
};

REGISTER_OP("BertPretrainAttention")
    .Input("qkv: float")          // [T, 3H]: query, key, value
    .Input("slots: int32")        // [T]
    .Input("example_ids: int32")  // [R, S]
    .Input("key: uint32")         // [2], of the mask
    .Attr("num_heads: int")
    .Attr("num_dropped: int")     // of 2^32
    .Output("context: float")     // [T, H]
    .Output("log_sums: float")    // [N, T], of the exponentials of the scores
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      int64_t num_heads;
      TF_RETURN_IF_ERROR(context->GetAttr("num_heads", &num_heads));
      const auto tokens = context->Dim(context->input(0), 0);
      tensorflow::shape_inference::DimensionHandle hidden;
      TF_RETURN_IF_ERROR(context->Divide(context->Dim(context->input(0), 1), 3, true, &hidden));
      context->set_output(0, context->Matrix(tokens, hidden));
      context->set_output(1, context->Matrix(num_heads, tokens));
      return tensorflow::Status();
    });
REGISTER_KERNEL_BUILDER(Name("BertPretrainAttention").Device(tensorflow::DEVICE_CPU), AttentionForward);

REGISTER_OP("BertPretrainAttentionGrad")
    .Input("qkv: float")
    .Input("slots: int32")
    .Input("example_ids: int32")
    .Input("key: uint32")
    .Input("context: float")
    .Input("log_sums: float")
    .Input("grad_context: float")  // [T, H]
    .Attr("num_heads: int")
    .Attr("num_dropped: int")
    .Output("grad_qkv: float")  // [T, 3H]
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainAttentionGrad").Device(tensorflow::DEVICE_CPU), AttentionBackward);

}  // namespace
}  // namespace bert_pretrain
