// Dropout, residual and layer norm in one pass over memory, and their gradients in another.
// Layer norm: Ba et al. 2016, arXiv:1607.06450.

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

constexpr int64_t kTokensPerBlock = 32;

using View = Eigen::Map<Eigen::ArrayXf>;
using ConstView = Eigen::Map<const Eigen::ArrayXf>;

// Calls work(token, block) for every token.
template <typename Work>
void ForEachToken(OpKernelContext* context, int64_t num_tokens, const Work& work) {
  ForEachBlock(context, num_tokens, kTokensPerBlock, [&](int64_t first, int64_t count, int64_t block) {
    for (int64_t token = first; token < first + count; ++token) work(token, block);
  });
}

class AddAndNorm : public OpKernel {
 public:
  explicit AddAndNorm(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_dropped", &num_dropped_));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& inputs = context->input(0);
    const float* residual = context->input(1).dims() == 2 ? context->input(1).flat<float>().data() : nullptr;
    const Mask mask(context->input(4), num_dropped_);
    const int64_t num_tokens = inputs.dim_size(0), hidden = inputs.dim_size(1);
    Tensor *outputs = nullptr, *totals = nullptr, *means = nullptr, *rstds = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, inputs.shape(), &outputs));
    OP_REQUIRES_OK(context, context->allocate_output(1, inputs.shape(), &totals));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({num_tokens}), &means));
    OP_REQUIRES_OK(context, context->allocate_output(3, TensorShape({num_tokens}), &rstds));
    const ConstView gamma(context->input(2).flat<float>().data(), hidden);
    const ConstView beta(context->input(3).flat<float>().data(), hidden);
    ForEachToken(context, num_tokens, [&](int64_t token, int64_t) {
      const int64_t start = token * hidden;
      View total(totals->flat<float>().data() + start, hidden), output(outputs->flat<float>().data() + start, hidden);
      mask.Apply(static_cast<uint32_t>(start), hidden, inputs.flat<float>().data() + start, total.data());
      if (residual != nullptr) total += ConstView(residual + start, hidden);
      const float mean = total.mean();
      const float rstd = 1.0f / std::sqrt((total - mean).square().mean() + epsilon_);
      output = (total - mean) * rstd * gamma + beta;
      means->vec<float>()(token) = mean;
      rstds->vec<float>()(token) = rstd;
    });
  }

 private:
  int64_t num_dropped_;
  float epsilon_;
};

class AddAndNormGrad : public OpKernel {
 public:
  explicit AddAndNormGrad(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_dropped", &num_dropped_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &totals = context->input(0), &means = context->input(1), &rstds = context->input(2);
    const Tensor& grad_outputs = context->input(4);
    const Mask mask(context->input(5), num_dropped_);
    const int64_t num_tokens = totals.dim_size(0), hidden = totals.dim_size(1);
    Tensor *grad_inputs = nullptr, *grad_residuals = nullptr, *grad_gamma = nullptr, *grad_beta = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, totals.shape(), &grad_inputs));
    OP_REQUIRES_OK(context, context->allocate_output(1, totals.shape(), &grad_residuals));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({hidden}), &grad_gamma));
    OP_REQUIRES_OK(context, context->allocate_output(3, TensorShape({hidden}), &grad_beta));
    const ConstView gamma(context->input(3).flat<float>().data(), hidden);
    // One column of sums for each block, added in the order of the blocks: the same bits with any number of threads.
    Eigen::ArrayXXf gamma_sums = Eigen::ArrayXXf::Zero(hidden, NumBlocks(num_tokens, kTokensPerBlock));
    Eigen::ArrayXXf beta_sums = gamma_sums;
    ForEachToken(context, num_tokens, [&](int64_t token, int64_t block) {
      const int64_t start = token * hidden;
      const ConstView total(totals.flat<float>().data() + start, hidden);
      const ConstView grad_output(grad_outputs.flat<float>().data() + start, hidden);
      View grad_residual(grad_residuals->flat<float>().data() + start, hidden);
      View normalized(grad_inputs->flat<float>().data() + start, hidden);  // overwritten below
      const float mean = means.vec<float>()(token), rstd = rstds.vec<float>()(token);
      normalized = (total - mean) * rstd;
      beta_sums.col(block) += grad_output;
      gamma_sums.col(block) += grad_output * normalized;
      const float grad_mean = (grad_output * gamma).mean(), projection = (grad_output * gamma * normalized).mean();
      grad_residual = rstd * (grad_output * gamma - grad_mean - normalized * projection);
      mask.Apply(static_cast<uint32_t>(start), hidden, grad_residual.data(), normalized.data());
    });
    View(grad_gamma->flat<float>().data(), hidden) = gamma_sums.rowwise().sum();
    View(grad_beta->flat<float>().data(), hidden) = beta_sums.rowwise().sum();
  }

 private:
  int64_t num_dropped_;
};

REGISTER_OP("BertPretrainAddAndNorm")
    .Input("inputs: float")    // [T, H]
    .Input("residual: float")  // [T, H], or a scalar for none
    .Input("gamma: float")     // [H]
    .Input("beta: float")      // [H]
    .Input("key: uint32")      // [2], of the mask
    .Attr("num_dropped: int")  // of 2^32
    .Attr("epsilon: float")
    .Output("outputs: float")  // [T, H]
    .Output("total: float")    // [T, H], the sum that is normalized
    .Output("mean: float")     // [T]
    .Output("rstd: float")     // [T], the inverse standard deviation
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(0));
      context->set_output(1, context->input(0));
      context->set_output(2, context->Vector(context->Dim(context->input(0), 0)));
      context->set_output(3, context->Vector(context->Dim(context->input(0), 0)));
      return tensorflow::Status();
    });
REGISTER_KERNEL_BUILDER(Name("BertPretrainAddAndNorm").Device(tensorflow::DEVICE_CPU), AddAndNorm);

REGISTER_OP("BertPretrainAddAndNormGrad")
    .Input("total: float")
    .Input("mean: float")
    .Input("rstd: float")
    .Input("gamma: float")
    .Input("grad_outputs: float")
    .Input("key: uint32")
    .Attr("num_dropped: int")
    .Output("grad_inputs: float")
    .Output("grad_residual: float")
    .Output("grad_gamma: float")
    .Output("grad_beta: float")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(0));
      context->set_output(1, context->input(0));
      context->set_output(2, context->input(3));
      context->set_output(3, context->input(3));
      return tensorflow::Status();
    });
REGISTER_KERNEL_BUILDER(Name("BertPretrainAddAndNormGrad").Device(tensorflow::DEVICE_CPU), AddAndNormGrad);

}  // namespace
}  // namespace bert_pretrain
