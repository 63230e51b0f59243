// Dropout masks that are never in memory, bit for bit those of bert_pretrain/kernels/dropout.py.

#ifndef BERT_PRETRAIN_MASK_H_
#define BERT_PRETRAIN_MASK_H_

#include <algorithm>
#include <cstdint>

#include "tensorflow/core/framework/op_kernel.h"

namespace bert_pretrain {

// Wellons's "lowbias32".
inline uint32_t Mix(uint32_t word) {
  word = (word ^ (word >> 16)) * 0x7FEB352Du;
  word = (word ^ (word >> 15)) * 0x846CA68Bu;
  return word ^ (word >> 16);
}

// What the units of one array are multiplied by. Attributes dropped: how many of 2^32 hashes drop a unit.
class Mask {
 public:
  Mask(const tensorflow::Tensor& key, int64_t dropped)
      : first_(key.flat<uint32_t>()(0)),
        second_(key.flat<uint32_t>()(1)),
        dropped_(static_cast<uint32_t>(dropped)),
        factor_(static_cast<float>(4294967296.0 / (4294967296.0 - static_cast<double>(dropped)))) {}

  bool drops() const { return dropped_ > 0; }

  // For the unit with this number in its array, counted along the last dimension first: 0 or 1 / (1 - rate).
  // A loop that writes floats takes the mask by value: the compiler need not fear then that it writes to the mask.
  float operator()(uint32_t number) const {
    return Mix(Mix(number ^ first_) ^ second_) >= dropped_ ? factor_ : 0.0f;
  }

  // outputs = inputs with units dropped, from the unit with the number `first` on. The two may be the same array.
  void Apply(uint32_t first, int64_t count, const float* inputs, float* outputs) const {
    if (!drops()) {
      if (inputs != outputs) std::copy_n(inputs, count, outputs);
      return;
    }
    const Mask own = *this;
    for (int64_t i = 0; i < count; ++i) outputs[i] = inputs[i] * own(first + static_cast<uint32_t>(i));
  }

 private:
  const uint32_t first_, second_, dropped_;
  const float factor_;
};

}  // namespace bert_pretrain

#endif  // BERT_PRETRAIN_MASK_H_
