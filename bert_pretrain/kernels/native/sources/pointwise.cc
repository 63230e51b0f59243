// GELU and dropout, and their gradients: one pass over memory each.

#include <algorithm>
#include <cstdint>

#include "Eigen/Core"
#include "mask.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "work.h"

namespace bert_pretrain {
namespace {

using ::tensorflow::OpKernel;
using ::tensorflow::OpKernelConstruction;
using ::tensorflow::OpKernelContext;
using ::tensorflow::Tensor;

constexpr int64_t kPart = 1024;  // elements whose tanh is kept at once
constexpr float kScale = 0.7978845608028654f, kCubic = 0.044715f;  // sqrt(2 / pi), and Hendrycks & Gimpel's constant

using View = Eigen::Map<Eigen::ArrayXf>;
using ConstView = Eigen::Map<const Eigen::ArrayXf>;

class Gelu : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &output));
    const float* inputs = context->input(0).flat<float>().data();
    float* outputs = output->flat<float>().data();
    ForEachBlock(context, output->NumElements(), kBlock, [&](int64_t start, int64_t count, int64_t) {
      const ConstView x(inputs + start, count);
      View(outputs + start, count) = 0.5f * x * (1.0f + (kScale * x * (1.0f + kCubic * x * x)).tanh());
    });
  }
};

class GeluGradient : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &output));
    const float *inputs = context->input(0).flat<float>().data(), *upstream = context->input(1).flat<float>().data();
    float* gradient = output->flat<float>().data();
    ForEachBlock(context, output->NumElements(), kBlock, [&](int64_t start, int64_t count, int64_t) {
      for (int64_t i = start; i < start + count; i += kPart) {
        Part(inputs + i, upstream + i, std::min(kPart, start + count - i), gradient + i);
      }
    });
  }

 private:
  static void Part(const float* inputs, const float* upstream, int64_t count, float* gradient) {
    const ConstView x(inputs, count), u(upstream, count);
    Eigen::Array<float, kPart, 1> kept;
    auto tanh = kept.head(count);
    tanh = (kScale * x * (1.0f + kCubic * x * x)).tanh();
    View(gradient, count) =
        u * 0.5f * (1.0f + tanh + x * (1.0f - tanh * tanh) * kScale * (1.0f + 3.0f * kCubic * x * x));
  }
};

class Dropout : public OpKernel {
 public:
  explicit Dropout(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("dropped", &dropped_));
  }

  void Compute(OpKernelContext* context) override {
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &output));
    const Mask mask(context->input(1), dropped_);
    const float* inputs = context->input(0).flat<float>().data();
    float* outputs = output->flat<float>().data();
    ForEachBlock(context, output->NumElements(), kBlock, [&](int64_t start, int64_t count, int64_t) {
      mask.Apply(static_cast<uint32_t>(start), count, inputs + start, outputs + start);
    });
  }

 private:
  int64_t dropped_;
};

REGISTER_OP("BertPretrainGelu")
    .Input("inputs: float")
    .Output("outputs: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainGelu").Device(tensorflow::DEVICE_CPU), Gelu);

REGISTER_OP("BertPretrainGeluGradient")
    .Input("inputs: float")
    .Input("upstream: float")
    .Output("gradient: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainGeluGradient").Device(tensorflow::DEVICE_CPU), GeluGradient);

REGISTER_OP("BertPretrainDropout")
    .Input("inputs: float")
    .Input("key: uint32")  // [2]
    .Attr("dropped: int")  // of 2^32
    .Output("outputs: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainDropout").Device(tensorflow::DEVICE_CPU), Dropout);

}  // namespace
}  // namespace bert_pretrain
