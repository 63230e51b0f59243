// GELU and dropout with their gradients, each in one pass over memory.

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

// sqrt(2 / pi) and the constant of the tanh form (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2).
constexpr float kScale = 0.7978845608028654f, kCubic = 0.044715f;
constexpr int64_t kTanhs = 1024;  // elements whose tanh is kept on the stack

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

class GeluGrad : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &output));
    const float* inputs = context->input(0).flat<float>().data();
    const float* grad_outputs = context->input(1).flat<float>().data();
    float* grad_inputs = output->flat<float>().data();
    ForEachBlock(context, output->NumElements(), kBlock, [&](int64_t start, int64_t count, int64_t) {
      for (int64_t i = start; i < start + count; i += kTanhs) {
        ComputePart(inputs + i, grad_outputs + i, std::min(kTanhs, start + count - i), grad_inputs + i);
      }
    });
  }

 private:
  static void ComputePart(const float* inputs, const float* grad_outputs, int64_t count, float* grad_inputs) {
    const ConstView x(inputs, count), grad(grad_outputs, count);
    Eigen::Array<float, kTanhs, 1> tanhs;
    auto tanh = tanhs.head(count);
    tanh = (kScale * x * (1.0f + kCubic * x * x)).tanh();
    View(grad_inputs, count) =
        grad * 0.5f * (1.0f + tanh + x * (1.0f - tanh * tanh) * kScale * (1.0f + 3.0f * kCubic * x * x));
  }
};

class Dropout : public OpKernel {
 public:
  explicit Dropout(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_dropped", &num_dropped_));
  }

  void Compute(OpKernelContext* context) override {
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &output));
    const Mask mask(context->input(1), num_dropped_);
    const float* inputs = context->input(0).flat<float>().data();
    float* outputs = output->flat<float>().data();
    ForEachBlock(context, output->NumElements(), kBlock, [&](int64_t start, int64_t count, int64_t) {
      mask.Apply(static_cast<uint32_t>(start), count, inputs + start, outputs + start);
    });
  }

 private:
  int64_t num_dropped_;
};

REGISTER_OP("BertPretrainGelu")
    .Input("inputs: float")
    .Output("outputs: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainGelu").Device(tensorflow::DEVICE_CPU), Gelu);

REGISTER_OP("BertPretrainGeluGrad")
    .Input("inputs: float")
    .Input("grad_outputs: float")
    .Output("grad_inputs: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainGeluGrad").Device(tensorflow::DEVICE_CPU), GeluGrad);

REGISTER_OP("BertPretrainDropout")
    .Input("inputs: float")
    .Input("key: uint32")      // [2]
    .Attr("num_dropped: int")  // of 2^32
    .Output("outputs: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainDropout").Device(tensorflow::DEVICE_CPU), Dropout);

}  // namespace
}  // namespace bert_pretrain
