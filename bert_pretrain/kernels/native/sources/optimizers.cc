// LAMB and AdamW on variables in place: as few passes over memory as their formulas allow.
//
// LAMB needs the norm of the whole direction before a weight can move. Its first pass moves the moments and adds up
// both norms; its second makes the direction again instead of reading one that the first wrote.

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

constexpr int64_t kLanes = 16;     // partial sums side by side, so that the compiler may add in vectors

struct Numbers {
  float beta_1, rest_1;  // rest = 1 - beta, rounded once
  float beta_2, rest_2;
  float epsilon, decay;
};

// One variable's arrays, each of `size` elements.
struct Arrays {
  float *weight, *first, *second;
  const float* gradient;
  int64_t size;
};

struct Squares {
  double weight = 0.0, direction = 0.0;
};

// A resource variable that this update may write to, held until the end of the operation.
class Held {
 public:
  Status Take(OpKernelContext* context, int input) {
    TF_RETURN_IF_ERROR(tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, input), &variable_));
    lock_ = std::make_unique<tensorflow::mutex_lock>(*variable_->mu());
    Tensor* tensor = variable_->tensor();
    if (!tensor->IsInitialized()) return tensorflow::errors::FailedPrecondition("variable is not initialized");
    if (tensor->RefCountIsOne()) return tensorflow::OkStatus();
    // Somebody still reads the value as it was.
    Tensor own;
    TF_RETURN_IF_ERROR(context->allocate_temp(tensor->dtype(), tensor->shape(), &own));
    std::copy_n(tensor->flat<float>().data(), tensor->NumElements(), own.flat<float>().data());
    *tensor = own;
    return tensorflow::OkStatus();
  }

  float* data() { return variable_->tensor()->flat<float>().data(); }
  int64_t size() { return variable_->tensor()->NumElements(); }

 private:
  tensorflow::core::RefCountPtr<Var> variable_;
  std::unique_ptr<tensorflow::mutex_lock> lock_;
};

// Inputs and attributes that both rules have.
class Rule : public OpKernel {
 public:
  explicit Rule(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("beta_1", &numbers_.beta_1));
    OP_REQUIRES_OK(context, context->GetAttr("rest_1", &numbers_.rest_1));
    OP_REQUIRES_OK(context, context->GetAttr("beta_2", &numbers_.beta_2));
    OP_REQUIRES_OK(context, context->GetAttr("rest_2", &numbers_.rest_2));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &numbers_.epsilon));
    OP_REQUIRES_OK(context, context->GetAttr("decay", &numbers_.decay));
  }

  void Compute(OpKernelContext* context) override {
    Held weight, first, second;
    OP_REQUIRES_OK(context, weight.Take(context, 0));
    OP_REQUIRES_OK(context, first.Take(context, 1));
    OP_REQUIRES_OK(context, second.Take(context, 2));
    const Tensor& gradient = context->input(3);
    OP_REQUIRES(context, gradient.NumElements() == weight.size() && first.size() == weight.size() &&
                             second.size() == weight.size(),
                tensorflow::errors::InvalidArgument("weight, moments and gradient differ in size"));
    Move(context, {weight.data(), first.data(), second.data(), gradient.flat<float>().data(), weight.size()},
         context->input(4).scalar<float>()(), context->input(5).scalar<float>()());
  }

 protected:
  virtual void Move(OpKernelContext* context, const Arrays& arrays, float gradient_scale, float learning_rate) = 0;

  Numbers numbers_;
};

class Lamb : public Rule {
 public:
  explicit Lamb(OpKernelConstruction* context) : Rule(context) {
    OP_REQUIRES_OK(context, context->GetAttr("adapts", &adapts_));
  }

 private:
  void Move(OpKernelContext* context, const Arrays& arrays, float gradient_scale, float learning_rate) override {
    const auto corrections = context->input(6).vec<float>();
    const float one = 1.0f / corrections(0), two = 1.0f / corrections(1);
    std::vector<Squares> squares(NumBlocks(arrays.size, kBlock));
    ForEachBlock(context, arrays.size, kBlock, [&](int64_t start, int64_t count, int64_t block) {
      squares[block] = MoveMoments(arrays, start, count, gradient_scale, one, two);
    });
    const float rate = adapts_ ? learning_rate * TrustRatio(squares) : learning_rate;
    ForEachBlock(context, arrays.size, kBlock, [&](int64_t start, int64_t count, int64_t) {
      MoveWeight(arrays, start, count, rate, one, two);
    });
  }

  float Direction(float weight, float first, float second, float one, float two) const {
    return first * one / (std::sqrt(second * two) + numbers_.epsilon) + numbers_.decay * weight;
  }

  Squares MoveMoments(const Arrays& arrays, int64_t start, int64_t count, float scale, float one, float two) const {
    const float* __restrict weight = arrays.weight + start;
    const float* __restrict gradient = arrays.gradient + start;
    float* __restrict first = arrays.first + start;
    float* __restrict second = arrays.second + start;
    float weights[kLanes] = {}, directions[kLanes] = {};
    const auto move = [&](int64_t i, int64_t lane) {
      const float scaled = gradient[i] * scale;
      first[i] = numbers_.beta_1 * first[i] + numbers_.rest_1 * scaled;
      second[i] = numbers_.beta_2 * second[i] + numbers_.rest_2 * scaled * scaled;
      const float direction = Direction(weight[i], first[i], second[i], one, two);
      weights[lane] += weight[i] * weight[i];
      directions[lane] += direction * direction;
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) move(i + lane, lane);
    }
    for (; i < count; ++i) move(i, 0);
    Squares sums;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sums.weight += weights[lane];
      sums.direction += directions[lane];
    }
    return sums;
  }

  // |weight| / |direction|, or 1 where either is zero. The blocks' sums are added in their order, whoever made them.
  static float TrustRatio(const std::vector<Squares>& squares) {
    Squares all;
    for (const Squares& block : squares) {
      all.weight += block.weight;
      all.direction += block.direction;
    }
    if (!(all.weight > 0.0 && all.direction > 0.0)) return 1.0f;
    return static_cast<float>(std::sqrt(all.weight / all.direction));
  }

  void MoveWeight(const Arrays& arrays, int64_t start, int64_t count, float rate, float one, float two) const {
    float* __restrict weight = arrays.weight + start;
    const float* __restrict first = arrays.first + start;
    const float* __restrict second = arrays.second + start;
    for (int64_t i = 0; i < count; ++i) {
      weight[i] -= rate * Direction(weight[i], first[i], second[i], one, two);
    }
  }

  bool adapts_;
};

class Adamw : public Rule {
 public:
  using Rule::Rule;

 private:
  void Move(OpKernelContext* context, const Arrays& arrays, float gradient_scale, float learning_rate) override {
    ForEachBlock(context, arrays.size, kBlock, [&](int64_t start, int64_t count, int64_t) {
      float* __restrict weight = arrays.weight + start;
      float* __restrict first = arrays.first + start;
      float* __restrict second = arrays.second + start;
      const float* __restrict gradient = arrays.gradient + start;
      for (int64_t i = 0; i < count; ++i) {
        const float scaled = gradient[i] * gradient_scale;
        first[i] = numbers_.beta_1 * first[i] + numbers_.rest_1 * scaled;
        second[i] = numbers_.beta_2 * second[i] + numbers_.rest_2 * scaled * scaled;
        const float direction = first[i] / (std::sqrt(second[i]) + numbers_.epsilon) + numbers_.decay * weight[i];
        weight[i] -= learning_rate * direction;
      }
    });
  }
};

REGISTER_OP("BertPretrainLamb")
    .Input("weight: resource")
    .Input("first: resource")
    .Input("second: resource")
    .Input("gradient: float")
    .Input("gradient_scale: float")
    .Input("learning_rate: float")
    .Input("corrections: float")  // [2]
    .Attr("beta_1: float")
    .Attr("rest_1: float")
    .Attr("beta_2: float")
    .Attr("rest_2: float")
    .Attr("epsilon: float")
    .Attr("decay: float")
    .Attr("adapts: bool")  // whether the weight moves by the trust ratio
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);
REGISTER_KERNEL_BUILDER(Name("BertPretrainLamb").Device(tensorflow::DEVICE_CPU), Lamb);

REGISTER_OP("BertPretrainAdamw")
    .Input("weight: resource")
    .Input("first: resource")
    .Input("second: resource")
    .Input("gradient: float")
    .Input("gradient_scale: float")
    .Input("learning_rate: float")
    .Attr("beta_1: float")
    .Attr("rest_1: float")
    .Attr("beta_2: float")
    .Attr("rest_2: float")
    .Attr("epsilon: float")
    .Attr("decay: float")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);
REGISTER_KERNEL_BUILDER(Name("BertPretrainAdamw").Device(tensorflow::DEVICE_CPU), Adamw);

}  // namespace
}  // namespace bert_pretrain
