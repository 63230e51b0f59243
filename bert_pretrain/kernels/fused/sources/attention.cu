// Multi-head attention of packed rows on NVIDIA GPUs (compute capability 8.0 and above), forward and backward.
//
// Scores and probabilities stay in registers; the backward pass computes them again from log_sums, the logarithms of
// the softmax denominators (Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691). A token sees the tokens of
// its own example; tiles of queries and keys without a common example are skipped. Dropout masks are those of
// dropout.py, bit for bit. The backward pass uses no atomics: one kernel for each query tile's gradients, one for each
// key tile's, so that the same inputs give the same bits.
//
// Letters: R rows, S slots per row, a multiple of 64, N heads, D = 64 units of a head, H = N * D.
//
// Compiled by NVRTC. Without a GPU, tests compile this file as C++ with EMULATED_DEVICE, which names a header with the
// same primitives.

#ifdef EMULATED_DEVICE
#include EMULATED_DEVICE
#else

using uint32_t = unsigned int;
using uint16_t = unsigned short;

#define INFINITY_F __int_as_float(0x7f800000)

// D += A B: A 16 x 16, B 16 x 8, C and D 16 x 8, spread over a warp as PTX says of mma.m16n8k16.
__device__ __forceinline__ void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices from shared memory; lane 8 i + j gives the address of row j of matrix i.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], const uint16_t* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// The same, each matrix transposed.
__device__ __forceinline__ void LoadTransposed(uint32_t (&r)[4], const uint16_t* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// Two floats, rounded to bfloat16; the first one in the lower half.
__device__ __forceinline__ uint32_t Pack(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

__device__ __forceinline__ float ShuffleXor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
__device__ __forceinline__ float Exp(float value) { return __expf(value); }
__device__ __forceinline__ float Log(float value) { return __logf(value); }
__device__ __forceinline__ float FromBits(uint32_t bits) { return __uint_as_float(bits); }

#endif

namespace {

constexpr int kTile = 64;                   // queries or keys of a block; each of its 4 warps has 16 of them
constexpr int kThreads = 128;
constexpr int kSize = 64;                    // D
constexpr int kStride = kSize + 8;          // of a tile's rows in shared memory, so that ldmatrix meets no bank twice
constexpr int kSteps = kSize / 16;          // of the products over D
constexpr int kColumns = kTile / 8;         // 8 x 8 blocks along a tile
constexpr int kHeadColumns = kSize / 8;     // and along D

struct Shape {
  int num_heads, width;                     // N, S

  __device__ int hidden() const { return num_heads * kSize; }
};

struct Dropout {
  const uint32_t* key;                      // [2]
  uint32_t num_dropped;                     // of the 2^32 values of a hash; 0: no dropout
  float factor;                             // of a unit that is kept

  __device__ static uint32_t Mix(uint32_t word) {
    word = (word ^ (word >> 16)) * 0x7FEB352Du;
    word = (word ^ (word >> 15)) * 0x846CA68Bu;
    return word ^ (word >> 16);
  }
  __device__ float operator()(uint32_t unit, uint32_t key_0, uint32_t key_1) const {
    return Mix(Mix(unit ^ key_0) ^ key_1) >= num_dropped ? factor : 0.0f;
  }
};

struct alignas(16) Tile {
  uint16_t values[kTile][kStride];
};

struct alignas(16) Chunk { uint32_t words[4]; };

// The place of a value of a 16 x 8 accumulator in it.
__device__ int Lane() { return threadIdx.x % 32; }
__device__ int RowOf(int e) { return Lane() / 4 + 8 * (e / 2); }
__device__ int ColumnOf(int block, int e) { return 8 * block + 2 * (Lane() % 4) + e % 2; }

// A tile of bfloat16 rows, `stride` apart.
__device__ void Load(Tile& tile, const uint16_t* source, long long stride) {
  constexpr int kChunks = kSize / 8;
  for (int i = threadIdx.x; i < kTile * kChunks; i += kThreads) {
    const int row = i / kChunks, column = i % kChunks * 8;
    *reinterpret_cast<Chunk*>(&tile.values[row][column]) = *reinterpret_cast<const Chunk*>(source + row * stride + column);
  }
}

__device__ void LoadIds(int (&ids)[kTile], const int* source) {
  for (int i = threadIdx.x; i < kTile; i += kThreads) ids[i] = source[i];
}

__device__ void LoadFloats(float (&values)[kTile], const float* source) {
  for (int i = threadIdx.x; i < kTile; i += kThreads) values[i] = source[i];
}

// Whether a query and a key of two tiles have an example in common. All threads wait here for one another, twice.
__device__ bool HaveCommonExample(const int (&query_ids)[kTile], const int (&key_ids)[kTile]) {
  __syncthreads();
  bool common = false;
  for (int i = 0; i < kTile / 2; ++i)
    common |= query_ids[threadIdx.x % kTile] == key_ids[threadIdx.x / kTile * (kTile / 2) + i];
  return __syncthreads_or(common);
}

// outputs [16, 64] = 16 rows of one tile, from first_row, times all rows of the other.
__device__ void ProductOfRows(float (&outputs)[kColumns][4], const Tile& rows, int first_row, const Tile& others) {
  for (int j = 0; j < kColumns; ++j)
    for (int e = 0; e < 4; ++e) outputs[j][e] = 0.0f;
  const int lane = Lane();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint32_t a[4];
    LoadMatrices(a, &rows.values[first_row + lane % 16][16 * step + 8 * (lane / 16)]);
#pragma unroll
    for (int j = 0; j < kColumns; j += 2) {
      uint32_t b[4];
      LoadMatrices(b, &others.values[8 * j + lane % 8 + 8 * (lane / 16)][16 * step + 8 * (lane / 8 % 2)]);
      MultiplyAdd(outputs[j], a, b[0], b[1]);
      MultiplyAdd(outputs[j + 1], a, b[2], b[3]);
    }
  }
}

// outputs [16, D] += factors [16, 64], rounded to bfloat16, times the tile [64, D].
__device__ void AddProduct(float (&outputs)[kHeadColumns][4], const float (&factors)[kColumns][4], const Tile& tile) {
  const int lane = Lane();
#pragma unroll
  for (int step = 0; step < kTile / 16; ++step) {
    const float(&left)[4] = factors[2 * step];
    const float(&right)[4] = factors[2 * step + 1];
    const uint32_t a[4] = {Pack(left[0], left[1]), Pack(left[2], left[3]), Pack(right[0], right[1]),
                           Pack(right[2], right[3])};
#pragma unroll
    for (int j = 0; j < kHeadColumns; j += 2) {
      uint32_t b[4];
      LoadTransposed(b, &tile.values[16 * step + lane % 16][8 * j + 8 * (lane / 16)]);
      MultiplyAdd(outputs[j], a, b[0], b[1]);
      MultiplyAdd(outputs[j + 1], a, b[2], b[3]);
    }
  }
}

__device__ void Clear(float (&values)[kHeadColumns][4]) {
  for (int j = 0; j < kHeadColumns; ++j)
    for (int e = 0; e < 4; ++e) values[j][e] = 0.0f;
}

// Writes 16 rows [16, D] as bfloat16, each times its own factor.
__device__ void Store(uint16_t* target, long long stride, const float (&values)[kHeadColumns][4], float upper, float lower) {
#pragma unroll
  for (int j = 0; j < kHeadColumns; ++j) {
    uint16_t* place = target + RowOf(0) * stride + ColumnOf(j, 0);
    *reinterpret_cast<uint32_t*>(place) = Pack(values[j][0] * upper, values[j][1] * upper);
    *reinterpret_cast<uint32_t*>(place + 8 * stride) = Pack(values[j][2] * lower, values[j][3] * lower);
  }
}

// Over the four lanes that share a row of an accumulator.
__device__ float SumOfRow(float value) {
  value += ShuffleXor(value, 1);
  return value + ShuffleXor(value, 2);
}
__device__ float MaximumOfRow(float value) {
  value = fmaxf(value, ShuffleXor(value, 1));
  return fmaxf(value, ShuffleXor(value, 2));
}

}  // namespace

// Grid: (S / 64, N, R). qkv [R * S, 3H] -> context [R * S, H], log_sums [R, N, S].
extern "C" __global__ void __launch_bounds__(kThreads)
    AttentionForward(const uint16_t* qkv, const int* example_ids, const uint32_t* key, uint16_t* context,
                     float* log_sums, int num_heads, int width, uint32_t num_dropped, float factor, float scale) {
  __shared__ Tile queries, keys, values;
  __shared__ int query_ids[kTile], key_ids[kTile];
  const Shape shape{num_heads, width};
  const Dropout dropout{key, num_dropped, factor};
  const int head = blockIdx.y, row = blockIdx.z, first_query = blockIdx.x * kTile, first_row = threadIdx.x / 32 * 16;
  const long long stride = 3LL * shape.hidden(), slot = static_cast<long long>(row) * width;
  const uint16_t* head_qkv = qkv + slot * stride + head * kSize;
  const uint32_t key_0 = num_dropped ? key[0] : 0, key_1 = num_dropped ? key[1] : 0;
  Load(queries, head_qkv + first_query * stride, stride);
  LoadIds(query_ids, example_ids + slot + first_query);

  float outputs[kHeadColumns][4], maximum[2] = {-INFINITY_F, -INFINITY_F}, sum[2] = {0.0f, 0.0f};
  Clear(outputs);
  for (int first_key = 0; first_key < width; first_key += kTile) {
    __syncthreads();  // the last tile is read
    LoadIds(key_ids, example_ids + slot + first_key);
    if (!HaveCommonExample(query_ids, key_ids)) continue;
    Load(keys, head_qkv + first_key * stride + shape.hidden(), stride);
    Load(values, head_qkv + first_key * stride + 2 * shape.hidden(), stride);
    __syncthreads();
    float scores[kColumns][4], highest[2] = {-INFINITY_F, -INFINITY_F};
    ProductOfRows(scores, queries, first_row, keys);
    for (int j = 0; j < kColumns; ++j)
      for (int e = 0; e < 4; ++e) {
        const bool visible = query_ids[first_row + RowOf(e)] == key_ids[ColumnOf(j, e)];
        scores[j][e] = visible ? scores[j][e] * scale : -INFINITY_F;
        highest[e / 2] = fmaxf(highest[e / 2], scores[j][e]);
      }
    float base[2];
    for (int half = 0; half < 2; ++half) {
      const float next = fmaxf(maximum[half], MaximumOfRow(highest[half]));
      base[half] = next == -INFINITY_F ? 0.0f : next;  // a row that has seen no key yet
      const float shrink = Exp(maximum[half] - base[half]);
      maximum[half] = next;
      sum[half] *= shrink;
      for (int j = 0; j < kHeadColumns; ++j) {
        outputs[j][2 * half] *= shrink;
        outputs[j][2 * half + 1] *= shrink;
      }
    }
    for (int j = 0; j < kColumns; ++j)
      for (int e = 0; e < 4; ++e) {
        const float weight = Exp(scores[j][e] - base[e / 2]);
        sum[e / 2] += weight;
        const uint32_t query = first_query + first_row + RowOf(e);
        const uint32_t unit = ((row * num_heads + head) * width + query) * width + first_key + ColumnOf(j, e);
        scores[j][e] = num_dropped ? weight * dropout(unit, key_0, key_1) : weight;
      }
    AddProduct(outputs, scores, values);
  }
  for (int half = 0; half < 2; ++half) sum[half] = SumOfRow(sum[half]);
  const int query = first_query + first_row;
  Store(context + (slot + query) * shape.hidden() + head * kSize, shape.hidden(), outputs, 1.0f / sum[0], 1.0f / sum[1]);
  if (Lane() % 4 == 0) {
    float* own = log_sums + (static_cast<long long>(row) * num_heads + head) * width + query + Lane() / 4;
    own[0] = maximum[0] + Log(sum[0]);
    own[8] = maximum[1] + Log(sum[1]);
  }
}

// Grid: (S / 64, N, R). The gradients of the queries, a third of grad_qkv [R * S, 3H]; and row_sums [R, N, S], the
// scalar products of context and its gradient, which the other kernel needs.
extern "C" __global__ void __launch_bounds__(kThreads)
    AttentionQueryGradient(const uint16_t* qkv, const int* example_ids, const uint32_t* key, const uint16_t* context,
                           const float* log_sums, const uint16_t* grad_context, uint16_t* grad_qkv, float* row_sums,
                           int num_heads, int width, uint32_t num_dropped, float factor, float scale) {
  __shared__ Tile queries, keys, values, grads;
  __shared__ int query_ids[kTile], key_ids[kTile];
  __shared__ float logs[kTile], sums[kTile];
  const Shape shape{num_heads, width};
  const Dropout dropout{key, num_dropped, factor};
  const int head = blockIdx.y, row = blockIdx.z, first_query = blockIdx.x * kTile, first_row = threadIdx.x / 32 * 16;
  const long long stride = 3LL * shape.hidden(), slot = static_cast<long long>(row) * width;
  const long long line = (static_cast<long long>(row) * num_heads + head) * width + first_query;
  const uint16_t* head_qkv = qkv + slot * stride + head * kSize;
  const long long place = (slot + first_query) * shape.hidden() + head * kSize;
  const uint32_t key_0 = num_dropped ? key[0] : 0, key_1 = num_dropped ? key[1] : 0;
  Load(queries, head_qkv + first_query * stride, stride);
  Load(grads, grad_context + place, shape.hidden());
  Load(keys, context + place, shape.hidden());  // until the row sums are known
  LoadIds(query_ids, example_ids + slot + first_query);
  LoadFloats(logs, log_sums + line);
  __syncthreads();
  if (threadIdx.x < kTile) {
    float sum = 0.0f;
    for (int d = 0; d < kSize; ++d)
      sum += FromBits(static_cast<uint32_t>(keys.values[threadIdx.x][d]) << 16) *
             FromBits(static_cast<uint32_t>(grads.values[threadIdx.x][d]) << 16);
    sums[threadIdx.x] = sum;
    row_sums[line + threadIdx.x] = sum;
  }

  float outputs[kHeadColumns][4];
  Clear(outputs);
  for (int first_key = 0; first_key < width; first_key += kTile) {
    __syncthreads();
    LoadIds(key_ids, example_ids + slot + first_key);
    if (!HaveCommonExample(query_ids, key_ids)) continue;
    Load(keys, head_qkv + first_key * stride + shape.hidden(), stride);
    Load(values, head_qkv + first_key * stride + 2 * shape.hidden(), stride);
    __syncthreads();
    float scores[kColumns][4], grad_weights[kColumns][4];
    ProductOfRows(scores, queries, first_row, keys);
    ProductOfRows(grad_weights, grads, first_row, values);
    for (int j = 0; j < kColumns; ++j)
      for (int e = 0; e < 4; ++e) {
        const int query = first_row + RowOf(e), column = ColumnOf(j, e);
        const bool visible = query_ids[query] == key_ids[column];
        const float weight = visible ? Exp(scores[j][e] * scale - logs[query]) : 0.0f;
        const uint32_t unit = ((row * num_heads + head) * width + first_query + query) * width + first_key + column;
        const float grad = num_dropped ? grad_weights[j][e] * dropout(unit, key_0, key_1) : grad_weights[j][e];
        scores[j][e] = weight * (grad - sums[query]) * scale;
      }
    AddProduct(outputs, scores, keys);
  }
  Store(grad_qkv + (slot + first_query + first_row) * stride + head * kSize, stride, outputs, 1.0f, 1.0f);
}

// Grid: (S / 64, N, R). The gradients of the keys and the values, the other two thirds of grad_qkv [R * S, 3H].
extern "C" __global__ void __launch_bounds__(kThreads)
    AttentionKeyValueGradient(const uint16_t* qkv, const int* example_ids, const uint32_t* key, const float* log_sums,
                              const uint16_t* grad_context, const float* row_sums, uint16_t* grad_qkv, int num_heads,
                              int width, uint32_t num_dropped, float factor, float scale) {
  __shared__ Tile queries, keys, values, grads;
  __shared__ int query_ids[kTile], key_ids[kTile];
  __shared__ float logs[kTile], sums[kTile];
  const Shape shape{num_heads, width};
  const Dropout dropout{key, num_dropped, factor};
  const int head = blockIdx.y, row = blockIdx.z, first_key = blockIdx.x * kTile, first_row = threadIdx.x / 32 * 16;
  const long long stride = 3LL * shape.hidden(), slot = static_cast<long long>(row) * width;
  const long long line = (static_cast<long long>(row) * num_heads + head) * width;
  const uint16_t* head_qkv = qkv + slot * stride + head * kSize;
  const uint16_t* head_grads = grad_context + slot * shape.hidden() + head * kSize;
  const uint32_t key_0 = num_dropped ? key[0] : 0, key_1 = num_dropped ? key[1] : 0;
  Load(keys, head_qkv + first_key * stride + shape.hidden(), stride);
  Load(values, head_qkv + first_key * stride + 2 * shape.hidden(), stride);
  LoadIds(key_ids, example_ids + slot + first_key);

  float grad_keys[kHeadColumns][4], grad_values[kHeadColumns][4];
  Clear(grad_keys);
  Clear(grad_values);
  for (int first_query = 0; first_query < width; first_query += kTile) {
    __syncthreads();
    LoadIds(query_ids, example_ids + slot + first_query);
    if (!HaveCommonExample(query_ids, key_ids)) continue;
    Load(queries, head_qkv + first_query * stride, stride);
    Load(grads, head_grads + static_cast<long long>(first_query) * shape.hidden(), shape.hidden());
    LoadFloats(logs, log_sums + line + first_query);
    LoadFloats(sums, row_sums + line + first_query);
    __syncthreads();
    float scores[kColumns][4], grad_weights[kColumns][4];  // [keys, queries]
    ProductOfRows(scores, keys, first_row, queries);
    ProductOfRows(grad_weights, values, first_row, grads);
    for (int j = 0; j < kColumns; ++j)
      for (int e = 0; e < 4; ++e) {
        const int column = first_row + RowOf(e), query = ColumnOf(j, e);
        const bool visible = query_ids[query] == key_ids[column];
        const float weight = visible ? Exp(scores[j][e] * scale - logs[query]) : 0.0f;
        const uint32_t unit = ((row * num_heads + head) * width + first_query + query) * width + first_key + column;
        const float kept = num_dropped ? dropout(unit, key_0, key_1) : 1.0f;
        scores[j][e] = weight * kept;
        grad_weights[j][e] = weight * (grad_weights[j][e] * kept - sums[query]) * scale;
      }
    AddProduct(grad_values, scores, grads);
    AddProduct(grad_keys, grad_weights, queries);
  }
  uint16_t* target = grad_qkv + (slot + first_key + first_row) * stride + head * kSize;
  Store(target + shape.hidden(), stride, grad_keys, 1.0f, 1.0f);
  Store(target + 2 * shape.hidden(), stride, grad_values, 1.0f, 1.0f);
}
