// Dropout masks that are never stored in memory, bit for bit those of bert_pretrain/kernels/dropout.py.

#ifndef BERT_PRETRAIN_MASK_H_
#define BERT_PRETRAIN_MASK_H_

#include <algorithm>
#include <cstdint>

#include "tensorflow/core/framework/op_kernel.h"

namespace bert_pretrain {

// Wellons's "lowbias32" (https://nullprogram.com/blog/2018/07/31/).
inline uint32_t Mix(uint32_t word) {
  word = (word ^ (word >> 16)) * 0x7FEB352Du;
  word = (word ^ (word >> 15)) * 0x846CA68Bu;
  return word ^ (word >> 16);
}

// The factors of one array's units. The units are numbered along the last dimension first.
class Mask {
 public:
  // key: two words. num_dropped: how many of the 2^32 values of a hash drop a unit.
  Mask(const tensorflow::Tensor& key, int64_t num_dropped)
      : key_0_(key.flat<uint32_t>()(0)),
        key_1_(key.flat<uint32_t>()(1)),
        num_dropped_(static_cast<uint32_t>(num_dropped)),
        factor_(static_cast<float>(4294967296.0 / (4294967296.0 - static_cast<double>(num_dropped)))) {}

  bool drops() const { return num_dropped_ > 0; }

  // The factor of the unit with this number: 0 or 1 / (1 - rate).
  // Loops that write floats take the mask by value, so that the compiler can rule out aliasing.
  float operator()(uint32_t number) const {
    return Mix(Mix(number ^ key_0_) ^ key_1_) >= num_dropped_ ? factor_ : 0.0f;
  }

  // outputs = inputs times their factors; `first` is the number of the first unit. The arrays may be the same.
  void Apply(uint32_t first, int64_t count, const float* inputs, float* outputs) const {
    if (!drops()) {
      if (inputs != outputs) std::copy_n(inputs, count, outputs);
      return;
    }
    const Mask mask = *this;
    for (int64_t i = 0; i < count; ++i) outputs[i] = inputs[i] * mask(first + static_cast<uint32_t>(i));
  }

 private:
  const uint32_t key_0_, key_1_, num_dropped_;
  const float factor_;
};

}  // namespace bert_pretrain

#endif  // BERT_PRETRAIN_MASK_H_
