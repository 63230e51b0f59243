// Residual, dropout and layer norm in one pass, and their gradient in another.

#include <cmath>
#include <cstdint>

#include "Eigen/Core"
#include "mask.h"
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

constexpr int64_t kTokens = 32;  // of a block

using View = Eigen::Map<Eigen::ArrayXf>;
using ConstView = Eigen::Map<const Eigen::ArrayXf>;

// work(token, block) for every token.
template <typename Work>
void ForEachToken(OpKernelContext* context, int64_t num_tokens, const Work& work) {
  ForEachBlock(context, num_tokens, kTokens, [&](int64_t first, int64_t count, int64_t block) {
    for (int64_t token = first; token < first + count; ++token) work(token, block);
  });
}

class AddNorm : public OpKernel {
 public:
  explicit AddNorm(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("dropped", &dropped_));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& inputs = context->input(0);
    const float* residual = context->input(1).dims() == 2 ? context->input(1).flat<float>().data() : nullptr;
    const Mask mask(context->input(4), dropped_);
    const int64_t num_tokens = inputs.dim_size(0), hidden = inputs.dim_size(1);
    Tensor *output = nullptr, *total = nullptr, *moments = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, inputs.shape(), &output));
    OP_REQUIRES_OK(context, context->allocate_output(1, inputs.shape(), &total));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({num_tokens, 2}), &moments));
    const ConstView gamma(context->input(2).flat<float>().data(), hidden);
    const ConstView beta(context->input(3).flat<float>().data(), hidden);
    ForEachToken(context, num_tokens, [&](int64_t token, int64_t) {
      const int64_t start = token * hidden;
      View sum(total->flat<float>().data() + start, hidden), result(output->flat<float>().data() + start, hidden);
      mask.Apply(static_cast<uint32_t>(start), hidden, inputs.flat<float>().data() + start, sum.data());
      if (residual != nullptr) sum += ConstView(residual + start, hidden);
      const float mean = sum.mean();
      const float deviation = 1.0f / std::sqrt((sum - mean).square().mean() + epsilon_);
      result = (sum - mean) * deviation * gamma + beta;
      moments->matrix<float>()(token, 0) = mean;
      moments->matrix<float>()(token, 1) = deviation;
    });
  }

 private:
  int64_t dropped_;
  float epsilon_;
};

class AddNormGradient : public OpKernel {
 public:
  explicit AddNormGradient(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("dropped", &dropped_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &total = context->input(0), &moments = context->input(1), &upstream = context->input(3);
    const Mask mask(context->input(4), dropped_);
    const int64_t num_tokens = total.dim_size(0), hidden = total.dim_size(1);
    Tensor *to_inputs = nullptr, *to_residual = nullptr, *to_gamma = nullptr, *to_beta = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, total.shape(), &to_inputs));
    OP_REQUIRES_OK(context, context->allocate_output(1, total.shape(), &to_residual));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({hidden}), &to_gamma));
    OP_REQUIRES_OK(context, context->allocate_output(3, TensorShape({hidden}), &to_beta));
    const ConstView gamma(context->input(2).flat<float>().data(), hidden);
    // Each block adds its tokens up; the blocks' sums are added in their order, whichever thread made them.
    Eigen::ArrayXXf gammas = Eigen::ArrayXXf::Zero(hidden, NumBlocks(num_tokens, kTokens)), betas = gammas;
    ForEachToken(context, num_tokens, [&](int64_t token, int64_t block) {
      const int64_t start = token * hidden;
      const ConstView sum(total.flat<float>().data() + start, hidden);
      const ConstView given(upstream.flat<float>().data() + start, hidden);
      View result(to_residual->flat<float>().data() + start, hidden);
      View normal(to_inputs->flat<float>().data() + start, hidden);  // until what belongs there is known
      const float mean = moments.matrix<float>()(token, 0), deviation = moments.matrix<float>()(token, 1);
      normal = (sum - mean) * deviation;
      betas.col(block) += given;
      gammas.col(block) += given * normal;
      const float average = (given * gamma).mean(), along = (given * gamma * normal).mean();
      result = deviation * (given * gamma - average - normal * along);
      mask.Apply(static_cast<uint32_t>(start), hidden, result.data(), normal.data());
    });
    View(to_gamma->flat<float>().data(), hidden) = gammas.rowwise().sum();
    View(to_beta->flat<float>().data(), hidden) = betas.rowwise().sum();
  }

 private:
  int64_t dropped_;
};

REGISTER_OP("BertPretrainAddNorm")
    .Input("inputs: float")    // [T, H]
    .Input("residual: float")  // [T, H], or a scalar where there is none
    .Input("gamma: float")     // [H]
    .Input("beta: float")      // [H]
    .Input("key: uint32")      // [2], the mask's
    .Attr("dropped: int")      // of 2^32
    .Attr("epsilon: float")
    .Output("outputs: float")  // [T, H]
    .Output("total: float")    // [T, H]
    .Output("moments: float")  // [T, 2]: mean and inverse deviation
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(0));
      context->set_output(1, context->input(0));
      context->set_output(2, context->Matrix(context->Dim(context->input(0), 0), 2));
      return tensorflow::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertPretrainAddNorm").Device(tensorflow::DEVICE_CPU), AddNorm);

REGISTER_OP("BertPretrainAddNormGradient")
    .Input("total: float")
    .Input("moments: float")
    .Input("gamma: float")
    .Input("upstream: float")
    .Input("key: uint32")
    .Attr("dropped: int")
    .Output("to_inputs: float")
    .Output("to_residual: float")
    .Output("to_gamma: float")
    .Output("to_beta: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(0));
      context->set_output(1, context->input(0));
      context->set_output(2, context->input(2));
      context->set_output(3, context->input(2));
      return tensorflow::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertPretrainAddNormGradient").Device(tensorflow::DEVICE_CPU), AddNormGradient);

}  // namespace
}  // namespace bert_pretrain
