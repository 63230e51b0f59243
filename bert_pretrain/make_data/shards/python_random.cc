// Draws of Python's random.Random: random, randint and shuffle of Lib/random.py, which have been the same since Python 3.2.
// NumPy computes the words of the generator, the Mersenne Twister MT19937.

#include <cstdint>
#include <utility>

namespace {

// bitgen_t of numpy/random/bitgen.h.
struct Generator {
  void* state;
  uint64_t (*next_uint64)(void* state);
  uint32_t (*next_uint32)(void* state);
  double (*next_double)(void* state);
};

constexpr int32_t kKept = -1;  // KEPT of data/masking.py

}  // namespace

extern "C" {

// random(): in [0, 1).
double DrawUniform(Generator* generator) { return generator->next_double(generator->state); }

// randint(0, limit - 1). As many high bits of a word as limit has, again until they are below it.
uint32_t DrawBelow(Generator* generator, uint32_t limit) {
  const int shift = __builtin_clz(limit);
  uint32_t drawn;
  do {
    drawn = generator->next_uint32(generator->state) >> shift;
  } while (drawn >= limit);
  return drawn;
}

// shuffle() of 0, 1, ... count - 1.
void DrawOrder(Generator* generator, uint32_t* order, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) order[i] = i;
  for (uint32_t end = count; end > 1; --end) std::swap(order[end - 1], order[DrawBelow(generator, end)]);
}

// What replaces masked tokens: mask_id for 80 %, half of the others stay, a random entry of the vocabulary for the rest.
void DrawReplacements(Generator* generator, int32_t* replacements, uint32_t count, int32_t mask_id,
                      const int32_t* entries, uint32_t num_entries) {
  for (uint32_t i = 0; i < count; ++i) {
    if (DrawUniform(generator) < 0.8) {
      replacements[i] = mask_id;
    } else if (DrawUniform(generator) < 0.5) {
      replacements[i] = kKept;
    } else {
      replacements[i] = entries[DrawBelow(generator, num_entries)];
    }
  }
}

}  // extern "C"
