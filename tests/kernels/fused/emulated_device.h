// The primitives of attention.cu on a CPU: the threads of a block are fibers, which take turns wherever they wait for
// one another. What a warp computes together follows PTX's description of mma.m16n8k16 and ldmatrix.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static  // blocks run one after the other
#define INFINITY_F std::numeric_limits<float>::infinity()

struct Index { int x, y, z; };
inline Index threadIdx, blockIdx;

namespace emulated {

struct Meeting { int arrived = 0; long round = 0; int any = 0, result = 0; };
struct Warp {
  Meeting meeting;
  uint32_t a[32][4], b[32][2], r[32][4];
  float d[32][4], shuffled[32], value[32];
  const uint16_t* rows[32];
};

inline std::vector<ucontext_t> fibers;
inline std::vector<std::vector<char>> stacks;
inline std::vector<bool> done;
inline ucontext_t scheduler;
inline int current, num_threads;
inline uint32_t order = 1;
inline int progress;  // grows where threads have met or ended
inline Meeting block_meeting;
inline std::vector<Warp> warps;
inline std::function<void()> body;

inline void Yield() {
  const int self = current;
  swapcontext(&fibers[self], &scheduler);
}

// Waits for `size` threads; the last one to arrive computes for all.
template <typename Work>
void Meet(Meeting& meeting, int size, Work work) {
  const long round = meeting.round;
  if (++meeting.arrived == size) {
    work();
    meeting.arrived = 0;
    ++meeting.round;
    ++progress;
    return;
  }
  while (meeting.round == round) Yield();
}

inline Warp& OwnWarp() { return warps[current / 32]; }

inline void Fiber() {
  body();
  done[current] = true;
  Yield();
}

template <typename Kernel, typename... Arguments>
void Launch(Index grid, int threads, Kernel kernel, Arguments... arguments) {
  num_threads = threads;
  body = [&] { kernel(arguments...); };
  fibers.resize(threads);
  stacks.assign(threads, std::vector<char>(256 * 1024));
  for (int z = 0; z < grid.z; ++z)
    for (int y = 0; y < grid.y; ++y)
      for (int x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        warps.assign(threads / 32, Warp());
        block_meeting = Meeting();
        done.assign(threads, false);
        for (int i = 0; i < threads; ++i) {
          getcontext(&fibers[i]);
          fibers[i].uc_stack.ss_sp = stacks[i].data();
          fibers[i].uc_stack.ss_size = stacks[i].size();
          fibers[i].uc_link = &scheduler;
          makecontext(&fibers[i], Fiber, 0);
        }
        // So that a missing wait shows, turns come in another order each time, and one warp has none until all others
        // wait for it.
        int left = threads, last = 0;
        for (int slow = 0; left > 0; slow = last == progress ? (slow + 1) % (threads / 32) : slow) {
          last = progress;
          order = order * 1664525u + 1013904223u;
          for (int turn = 0; turn < threads; ++turn) {
            current = ((order >> 8) + turn * (order >> 16 | 1)) & (threads - 1);  // each once: a power of two
            if (done[current] || current / 32 == slow) continue;
            threadIdx = {current, 0, 0};
            swapcontext(&scheduler, &fibers[current]);
            left -= done[current];
            progress += done[current];
          }
        }
      }
}

inline float Widen(uint32_t bits) {
  bits <<= 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t Round(float value) {  // to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

}  // namespace emulated

inline void __syncthreads() { emulated::Meet(emulated::block_meeting, emulated::num_threads, [] {}); }

inline bool __syncthreads_or(bool value) {
  emulated::Meeting& meeting = emulated::block_meeting;
  meeting.any |= value;
  emulated::Meet(meeting, emulated::num_threads, [&] { meeting.result = meeting.any; meeting.any = 0; });
  return meeting.result;
}

inline void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulated::Warp& warp = emulated::OwnWarp();
  const int lane = emulated::current % 32;
  std::memcpy(warp.a[lane], a, sizeof(a));
  std::memcpy(warp.d[lane], d, sizeof(d));
  warp.b[lane][0] = b0;
  warp.b[lane][1] = b1;
  emulated::Meet(warp.meeting, 32, [&] {
    float left[16][16], right[16][8], sums[16][8];
    for (int i = 0; i < 32; ++i) {
      const int group = i / 4, pair = i % 4 * 2;
      for (int word = 0; word < 4; ++word)
        for (int half = 0; half < 2; ++half)
          left[group + word % 2 * 8][pair + half + word / 2 * 8] = emulated::Widen(warp.a[i][word] >> (16 * half) & 0xFFFF);
      for (int word = 0; word < 2; ++word)
        for (int half = 0; half < 2; ++half)
          right[pair + half + 8 * word][group] = emulated::Widen(warp.b[i][word] >> (16 * half) & 0xFFFF);
      for (int e = 0; e < 4; ++e) sums[group + e / 2 * 8][pair + e % 2] = warp.d[i][e];
    }
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column)
        for (int k = 0; k < 16; ++k) sums[row][column] += left[row][k] * right[k][column];
    for (int i = 0; i < 32; ++i)
      for (int e = 0; e < 4; ++e) warp.d[i][e] = sums[i / 4 + e / 2 * 8][i % 4 * 2 + e % 2];
  });
  std::memcpy(d, warp.d[lane], sizeof(d));
}

inline void LoadFour(uint32_t (&r)[4], const uint16_t* row, bool transposed) {
  emulated::Warp& warp = emulated::OwnWarp();
  const int lane = emulated::current % 32;
  warp.rows[lane] = row;
  emulated::Meet(warp.meeting, 32, [&] {
    for (int i = 0; i < 32; ++i)
      for (int matrix = 0; matrix < 4; ++matrix) {
        uint32_t halves[2];
        for (int half = 0; half < 2; ++half)
          halves[half] = transposed ? warp.rows[8 * matrix + i % 4 * 2 + half][i / 4]
                                    : warp.rows[8 * matrix + i / 4][i % 4 * 2 + half];
        warp.r[i][matrix] = halves[0] | halves[1] << 16;
      }
  });
  std::memcpy(r, warp.r[lane], sizeof(r));
}
inline void LoadMatrices(uint32_t (&r)[4], const uint16_t* row) { LoadFour(r, row, false); }
inline void LoadTransposed(uint32_t (&r)[4], const uint16_t* row) { LoadFour(r, row, true); }

inline float ShuffleXor(float value, int mask) {
  emulated::Warp& warp = emulated::OwnWarp();
  const int lane = emulated::current % 32;
  warp.value[lane] = value;
  emulated::Meet(warp.meeting, 32, [&] { for (int i = 0; i < 32; ++i) warp.shuffled[i] = warp.value[i ^ mask]; });
  return warp.shuffled[lane];
}

inline uint32_t Pack(float low, float high) { return emulated::Round(low) | emulated::Round(high) << 16; }
inline float Exp(float value) { return std::exp(value); }
inline float Log(float value) { return std::log(value); }
inline float FromBits(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }

