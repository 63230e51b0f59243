// Adds float values to 64-bit fixed-point totals: an exact sum, whose bits do not depend on the order of its terms.

#include <cmath>
#include <cstdint>
#include <vector>

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

class AddFixed : public OpKernel {
 public:
  explicit AddFixed(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("limit", &limit_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &totals = context->input(0), &values = context->input(1);
    const float factor = context->input(2).scalar<float>()();
    const bool has_totals = totals.dims() == values.dims();
    OP_REQUIRES(context, has_totals ? totals.shape() == values.shape() : totals.dims() == 0,
                tensorflow::errors::InvalidArgument("totals and values differ in shape"));
    Tensor *sums = nullptr, *refused = nullptr;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, values.shape(), &sums));
    OP_REQUIRES_OK(context, context->allocate_output(1, {}, &refused));
    std::vector<int64_t> refused_in_block(NumBlocks(values.NumElements(), kBlock));
    const auto* old = has_totals ? totals.flat<tensorflow::int64>().data() : nullptr;
    auto* sum = sums->flat<tensorflow::int64>().data();
    const float* value = values.flat<float>().data();
    ForEachBlock(context, values.NumElements(), kBlock, [&](int64_t start, int64_t count, int64_t block) {
      int64_t num_refused = 0;
      for (int64_t i = start; i < start + count; ++i) {
        const float units = value[i] * factor;
        const bool fits = std::fabs(units) <= limit_;  // false for NaN, too
        num_refused += fits ? 0 : 1;
        sum[i] = (old != nullptr ? old[i] : 0) + static_cast<int64_t>(std::nearbyint(fits ? units : 0.0f));
      }
      refused_in_block[block] = num_refused;
    });
    int64_t num_refused = 0;
    for (const int64_t in_block : refused_in_block) num_refused += in_block;
    refused->scalar<tensorflow::int64>()() = num_refused;
  }

 private:
  float limit_;
};

REGISTER_OP("BertPretrainAddFixed")
    .Input("totals: int64")  // of the shape of the values, or a scalar for zeros
    .Input("values: float")
    .Input("factor: float")   // units of the fixed point in 1
    .Attr("limit: float")     // largest magnitude of a term, in units
    .Output("sums: int64")
    .Output("refused: int64")  // scalar: values that are not finite or exceed the limit; they are left out
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(1));
      context->set_output(1, context->Scalar());
      return tensorflow::Status();
    });
REGISTER_KERNEL_BUILDER(Name("BertPretrainAddFixed").Device(tensorflow::DEVICE_CPU), AddFixed);

}  // namespace
}  // namespace bert_pretrain
