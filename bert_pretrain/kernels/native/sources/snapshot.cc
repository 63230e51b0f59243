// A snapshot of variables that copies nothing: one session keeps references to their memory, another takes them over.
//
// While a reference is held, an update in place gives its variable new memory (optimizers.cc, and TensorFlow's own
// assignments), so what is referred to stays as it was.

#include <unordered_map>
#include <utility>
#include <vector>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace bert_pretrain {
namespace {

using ::tensorflow::OpKernel;
using ::tensorflow::OpKernelConstruction;
using ::tensorflow::OpKernelContext;
using ::tensorflow::Tensor;
using ::tensorflow::Var;

using Snapshot = std::vector<Tensor>;

// The snapshots of this process that nobody has taken, by key.
class Snapshots {
 public:
  static Snapshots& OfProcess() {
    static Snapshots* const snapshots = new Snapshots;  // never destroyed: threads may use it until the end
    return *snapshots;
  }

  void Put(int key, Snapshot snapshot) {
    tensorflow::mutex_lock lock(mutex_);
    snapshots_[key] = std::move(snapshot);
  }

  // Empty where there is none.
  Snapshot Take(int key) {
    tensorflow::mutex_lock lock(mutex_);
    Snapshot taken = std::move(snapshots_[key]);
    snapshots_.erase(key);
    return taken;
  }

 private:
  tensorflow::mutex mutex_;
  std::unordered_map<int, Snapshot> snapshots_;
};

class SnapshotKernel : public OpKernel {
 public:
  explicit SnapshotKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("key", &key_));
  }

 protected:
  int key_;
};

class KeepSnapshot : public SnapshotKernel {
 public:
  using SnapshotKernel::SnapshotKernel;

  void Compute(OpKernelContext* context) override {
    Snapshot snapshot;
    for (int input = 0; input < context->num_inputs(); ++input) {
      tensorflow::core::RefCountPtr<Var> variable;
      OP_REQUIRES_OK(context,
                     tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, input), &variable));
      tensorflow::tf_shared_lock lock(*variable->mu());
      snapshot.push_back(*variable->tensor());
    }
    Snapshots::OfProcess().Put(key_, std::move(snapshot));
  }
};

class TakeSnapshot : public SnapshotKernel {
 public:
  using SnapshotKernel::SnapshotKernel;

  void Compute(OpKernelContext* context) override {
    const Snapshot snapshot = Snapshots::OfProcess().Take(key_);
    OP_REQUIRES(context, static_cast<int>(snapshot.size()) == context->num_outputs(),
                tensorflow::errors::FailedPrecondition("no snapshot of ", context->num_outputs(), " variables"));
    for (int output = 0; output < context->num_outputs(); ++output) context->set_output(output, snapshot[output]);
  }
};

REGISTER_OP("BertPretrainKeepSnapshot")
    .Input("variables: num_variables * resource")
    .Attr("num_variables: int >= 1")
    .Attr("key: int")  // replaces a snapshot of this key that nobody has taken
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);
REGISTER_KERNEL_BUILDER(Name("BertPretrainKeepSnapshot").Device(tensorflow::DEVICE_CPU), KeepSnapshot);

REGISTER_OP("BertPretrainTakeSnapshot")
    .Attr("types: list(type) >= 1")
    .Attr("key: int")
    .Output("values: types")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::UnknownShape);
REGISTER_KERNEL_BUILDER(Name("BertPretrainTakeSnapshot").Device(tensorflow::DEVICE_CPU), TakeSnapshot);

}  // namespace
}  // namespace bert_pretrain
