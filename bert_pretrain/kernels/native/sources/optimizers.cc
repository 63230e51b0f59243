// LAMB and AdamW in place, with as few passes over memory as their formulas allow.
//
// LAMB (You et al. 2019, arXiv:1904.00962, algorithm 2) needs the norm of a variable's whole direction before any of
// its weights can change. The first pass updates the moments and sums up both norms; the second computes the direction
// again instead of reading one that the first would have to store.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "work.h"

namespace bert_pretrain {
namespace {

using ::tensorflow::OpKernel;
using ::tensorflow::OpKernelConstruction;
using ::tensorflow::OpKernelContext;
using ::tensorflow::Status;
using ::tensorflow::Tensor;
using ::tensorflow::Var;

constexpr int64_t kLanes = 16;  // independent partial sums, so that the compiler can add vectors

struct Hyperparameters {
  float beta_1, one_minus_beta_1;  // the second is rounded once, from float64
  float beta_2, one_minus_beta_2;
  float epsilon, decay;
};

// One variable's arrays, each of `size` elements.
struct Arrays {
  float *weight, *m, *v;
  const float* gradient;
  int64_t size;
};

struct SquareSums {
  double weight = 0.0, direction = 0.0;
};

// A resource variable, locked until the end of the operation, whose buffer no other operation reads.
class LockedVariable {
 public:
  Status Lock(OpKernelContext* context, int input) {
    TF_RETURN_IF_ERROR(tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, input), &variable_));
    lock_ = std::make_unique<tensorflow::mutex_lock>(*variable_->mu());
    Tensor* tensor = variable_->tensor();
    if (!tensor->IsInitialized()) return tensorflow::errors::FailedPrecondition("variable is not initialized");
    if (tensor->RefCountIsOne()) return tensorflow::Status();
    // A snapshot or an operation that read the variable still uses the buffer: leave it that, continue with a copy.
    Tensor copy;
    TF_RETURN_IF_ERROR(context->allocate_temp(tensor->dtype(), tensor->shape(), &copy));
    const float* from = tensor->flat<float>().data();
    float* to = copy.flat<float>().data();
    ForEachBlock(context, tensor->NumElements(), kBlock,
                 [&](int64_t start, int64_t count, int64_t) { std::copy_n(from + start, count, to + start); });
    *tensor = copy;
    return tensorflow::Status();
  }

  float* data() { return variable_->tensor()->flat<float>().data(); }
  int64_t size() { return variable_->tensor()->NumElements(); }

 private:
  tensorflow::core::RefCountPtr<Var> variable_;
  std::unique_ptr<tensorflow::mutex_lock> lock_;
};

// The inputs and attributes that both optimizers have.
class Optimizer : public OpKernel {
 public:
  explicit Optimizer(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("beta_1", &hyper_.beta_1));
    OP_REQUIRES_OK(context, context->GetAttr("one_minus_beta_1", &hyper_.one_minus_beta_1));
    OP_REQUIRES_OK(context, context->GetAttr("beta_2", &hyper_.beta_2));
    OP_REQUIRES_OK(context, context->GetAttr("one_minus_beta_2", &hyper_.one_minus_beta_2));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &hyper_.epsilon));
    OP_REQUIRES_OK(context, context->GetAttr("decay", &hyper_.decay));
  }

  void Compute(OpKernelContext* context) override {
    LockedVariable weight, m, v;
    OP_REQUIRES_OK(context, weight.Lock(context, 0));
    OP_REQUIRES_OK(context, m.Lock(context, 1));
    OP_REQUIRES_OK(context, v.Lock(context, 2));
    const Tensor& gradient = context->input(3);
    OP_REQUIRES(context, gradient.NumElements() == weight.size() && m.size() == weight.size() &&
                             v.size() == weight.size(),
                tensorflow::errors::InvalidArgument("weight, moments and gradient differ in size"));
    Update(context, {weight.data(), m.data(), v.data(), gradient.flat<float>().data(), weight.size()},
           context->input(4).scalar<float>()(), context->input(5).scalar<float>()());
  }

 protected:
  virtual void Update(OpKernelContext* context, const Arrays& arrays, float gradient_scale, float learning_rate) = 0;

  Hyperparameters hyper_;
};

class Lamb : public Optimizer {
 public:
  explicit Lamb(OpKernelConstruction* context) : Optimizer(context) {
    OP_REQUIRES_OK(context, context->GetAttr("use_trust_ratio", &use_trust_ratio_));
  }

 private:
  void Update(OpKernelContext* context, const Arrays& arrays, float gradient_scale, float learning_rate) override {
    const auto corrections = context->input(6).vec<float>();
    const float m_factor = 1.0f / corrections(0), v_factor = 1.0f / corrections(1);
    std::vector<SquareSums> sums(NumBlocks(arrays.size, kBlock));
    ForEachBlock(context, arrays.size, kBlock, [&](int64_t start, int64_t count, int64_t block) {
      sums[block] = UpdateMoments(arrays, start, count, gradient_scale, m_factor, v_factor);
    });
    const float rate = use_trust_ratio_ ? learning_rate * TrustRatio(sums) : learning_rate;
    ForEachBlock(context, arrays.size, kBlock, [&](int64_t start, int64_t count, int64_t) {
      UpdateWeight(arrays, start, count, rate, m_factor, v_factor);
    });
  }

  float Direction(float weight, float m, float v, float m_factor, float v_factor) const {
    return m * m_factor / (std::sqrt(v * v_factor) + hyper_.epsilon) + hyper_.decay * weight;
  }

  // Returns the square sums of this block's weights and directions.
  SquareSums UpdateMoments(const Arrays& arrays, int64_t start, int64_t count, float scale, float m_factor,
                           float v_factor) const {
    const float* __restrict weight = arrays.weight + start;
    const float* __restrict gradient = arrays.gradient + start;
    float* __restrict m = arrays.m + start;
    float* __restrict v = arrays.v + start;
    float weights[kLanes] = {}, directions[kLanes] = {};
    const auto update = [&](int64_t i, int64_t lane) {
      const float scaled = gradient[i] * scale;
      m[i] = hyper_.beta_1 * m[i] + hyper_.one_minus_beta_1 * scaled;
      v[i] = hyper_.beta_2 * v[i] + hyper_.one_minus_beta_2 * scaled * scaled;
      const float direction = Direction(weight[i], m[i], v[i], m_factor, v_factor);
      weights[lane] += weight[i] * weight[i];
      directions[lane] += direction * direction;
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) update(i + lane, lane);
    }
    for (; i < count; ++i) update(i, 0);
    SquareSums sums;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sums.weight += weights[lane];
      sums.direction += directions[lane];
    }
    return sums;
  }

  // |weight| / |direction|, or 1 if either is zero. Adds the sums in the order of the blocks, so that any number of
  // threads gives the same bits.
  static float TrustRatio(const std::vector<SquareSums>& sums) {
    SquareSums total;
    for (const SquareSums& block : sums) {
      total.weight += block.weight;
      total.direction += block.direction;
    }
    if (!(total.weight > 0.0 && total.direction > 0.0)) return 1.0f;
    return static_cast<float>(std::sqrt(total.weight / total.direction));
  }

  void UpdateWeight(const Arrays& arrays, int64_t start, int64_t count, float rate, float m_factor,
                    float v_factor) const {
    float* __restrict weight = arrays.weight + start;
    const float* __restrict m = arrays.m + start;
    const float* __restrict v = arrays.v + start;
    for (int64_t i = 0; i < count; ++i) {
      weight[i] -= rate * Direction(weight[i], m[i], v[i], m_factor, v_factor);
    }
  }

  bool use_trust_ratio_;
};

// google-research/bert optimization.py: no bias correction.
class Adamw : public Optimizer {
 public:
  using Optimizer::Optimizer;

 private:
  void Update(OpKernelContext* context, const Arrays& arrays, float gradient_scale, float learning_rate) override {
    ForEachBlock(context, arrays.size, kBlock, [&](int64_t start, int64_t count, int64_t) {
      float* __restrict weight = arrays.weight + start;
      float* __restrict m = arrays.m + start;
      float* __restrict v = arrays.v + start;
      const float* __restrict gradient = arrays.gradient + start;
      for (int64_t i = 0; i < count; ++i) {
        const float scaled = gradient[i] * gradient_scale;
        m[i] = hyper_.beta_1 * m[i] + hyper_.one_minus_beta_1 * scaled;
        v[i] = hyper_.beta_2 * v[i] + hyper_.one_minus_beta_2 * scaled * scaled;
        const float direction = m[i] / (std::sqrt(v[i]) + hyper_.epsilon) + hyper_.decay * weight[i];
        weight[i] -= learning_rate * direction;
      }
    });
  }
};

REGISTER_OP("BertPretrainLamb")
    .Input("weight: resource")
    .Input("m: resource")
    .Input("v: resource")
    .Input("gradient: float")
    .Input("gradient_scale: float")
    .Input("learning_rate: float")
    .Input("corrections: float")  // [2]: 1 - beta_1^t and 1 - beta_2^t
    .Attr("beta_1: float")
    .Attr("one_minus_beta_1: float")
    .Attr("beta_2: float")
    .Attr("one_minus_beta_2: float")
    .Attr("epsilon: float")
    .Attr("decay: float")
    .Attr("use_trust_ratio: bool")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);
REGISTER_KERNEL_BUILDER(Name("BertPretrainLamb").Device(tensorflow::DEVICE_CPU), Lamb);

REGISTER_OP("BertPretrainAdamw")
    .Input("weight: resource")
    .Input("m: resource")
    .Input("v: resource")
    .Input("gradient: float")
    .Input("gradient_scale: float")
    .Input("learning_rate: float")
    .Attr("beta_1: float")
    .Attr("one_minus_beta_1: float")
    .Attr("beta_2: float")
    .Attr("one_minus_beta_2: float")
    .Attr("epsilon: float")
    .Attr("decay: float")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);
REGISTER_KERNEL_BUILDER(Name("BertPretrainAdamw").Device(tensorflow::DEVICE_CPU), Adamw);

}  // namespace
}  // namespace bert_pretrain
