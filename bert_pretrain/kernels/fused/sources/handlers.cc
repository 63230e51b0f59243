// Calls the kernels of attention.cu from XLA's programs, as its foreign functions.
//
// Two functions, for the forward and the backward pass; module_text of __init__.py says what they take and return. They
// launch kernels on the program's stream by CUDA's driver, which is looked up when the first one runs, so that this
// file compiles and loads on any machine. With EMULATED_DEVICE, tests run the same functions on XLA's CPU.

#include <cstddef>
#include <cstdint>
#include <string>

#include "xla/ffi/api/c_api.h"
#include "xla/ffi/api/ffi.h"

#ifdef EMULATED_DEVICE
#include "attention.cu"
#else
#include <dlfcn.h>

#include <map>
#include <mutex>
#endif

namespace xla::ffi {
const XLA_FFI_Api* GetXlaFfiApi();  // of TensorFlow's libraries; their header of it does not compile without others
}

namespace bert_pretrain {
namespace {

namespace ffi = xla::ffi;

using Bfloat16s = ffi::Buffer<ffi::BF16>;
using Floats = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;
using Words = ffi::Buffer<ffi::U32>;

constexpr int kTileSize = 64, kBlockThreads = 128, kHeadSize = 64;  // as in attention.cu

struct Grid {
  int tiles, heads, rows;
};

#ifdef EMULATED_DEVICE

constexpr char kPlatform[] = "Host";

// XLA's CPU has no stream.
auto WithStream() { return ffi::Ffi::Bind(); }

#define LAUNCH(name, ...)                                                                                  \
  (emulated::Launch({grid.tiles, grid.heads, grid.rows}, kBlockThreads, name, __VA_ARGS__), ffi::Error::Success())
#define STREAM

#else

constexpr char kPlatform[] = "CUDA";

using Stream = void*;

// The functions of CUDA's driver, whose handles are all pointers, and the kernels of each context.
class Driver {
 public:
  static Driver& Get() {
    static Driver driver;
    return driver;
  }

  void SetImage(const char* image, size_t size) { image_.assign(image, size); }

  ffi::Error Launch(const char* name, Stream stream, const Grid& grid, void** arguments) {
    if (!library_) return ffi::Error::Internal("libcuda.so.1 cannot be loaded");
    void* context = nullptr;
    if (const int code = stream_context_(stream, &context)) return Failed("cuStreamGetCtx", code);
    if (const int code = push_(context)) return Failed("cuCtxPushCurrent", code);
    ffi::Error error = LaunchInContext(name, context, stream, grid, arguments);
    pop_(&context);
    return error;
  }

 private:
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) {
    if (!library_) return;
    Find("cuStreamGetCtx", &stream_context_);
    Find("cuCtxPushCurrent_v2", &push_);
    Find("cuCtxPopCurrent_v2", &pop_);
    Find("cuModuleLoadData", &load_);
    Find("cuModuleGetFunction", &function_);
    Find("cuLaunchKernel", &launch_);
  }

  template <typename Function>
  void Find(const char* name, Function* function) {
    *function = reinterpret_cast<Function>(dlsym(library_, name));
  }

  static ffi::Error Failed(const char* function, int code) {
    return ffi::Error::Internal(std::string(function) + " answered " + std::to_string(code));
  }

  ffi::Error LaunchInContext(const char* name, void* context, Stream stream, const Grid& grid, void** arguments) {
    const std::lock_guard<std::mutex> lock(mutex_);
    void*& module = modules_[context];
    if (!module) {
      if (const int code = load_(&module, image_.data())) return Failed("cuModuleLoadData", code);
    }
    void* kernel = nullptr;
    if (const int code = function_(&kernel, module, name)) return Failed("cuModuleGetFunction", code);
    if (const int code = launch_(kernel, grid.tiles, grid.heads, grid.rows, kBlockThreads, 1, 1, 0, stream, arguments,
                                 nullptr)) {
      return Failed("cuLaunchKernel", code);
    }
    return ffi::Error::Success();
  }

  void* const library_;
  int (*stream_context_)(Stream, void**) = nullptr;
  int (*push_)(void*) = nullptr;
  int (*pop_)(void**) = nullptr;
  int (*load_)(void**, const void*) = nullptr;
  int (*function_)(void**, void*, const char*) = nullptr;
  int (*launch_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**,
                 void**) = nullptr;
  std::string image_;  // compiled by NVRTC for the GPU
  std::mutex mutex_;
  std::map<void*, void*> modules_;
};

auto WithStream() { return ffi::Ffi::Bind().Ctx<ffi::PlatformStream<Stream>>(); }

template <typename... Arguments>
ffi::Error Launch(const char* name, Stream stream, const Grid& grid, Arguments... arguments) {
  void* addresses[] = {&arguments...};
  return Driver::Get().Launch(name, stream, grid, addresses);
}

#define LAUNCH(name, ...) Launch(#name, stream, grid, __VA_ARGS__)
#define STREAM Stream stream,

#endif

// What the kernels take besides the arrays.
struct Numbers {
  int width;
  uint32_t num_dropped;
  float factor, scale;
};

ffi::Error Check(const Bfloat16s& qkv, const Integers& example_ids, int32_t num_heads, int64_t num_dropped, Grid* grid,
                 Numbers* numbers) {
  const int64_t rows = example_ids.dimensions()[0], width = example_ids.dimensions()[1];
  if (width % kTileSize || qkv.dimensions()[0] != rows * width || qkv.dimensions()[1] != 3 * num_heads * kHeadSize) {
    return ffi::Error::InvalidArgument("fused attention needs heads of 64 units and rows of a multiple of 64 slots");
  }
  *grid = {static_cast<int>(width / kTileSize), num_heads, static_cast<int>(rows)};
  *numbers = {static_cast<int>(width), static_cast<uint32_t>(num_dropped),
              static_cast<float>(4294967296.0 / (4294967296.0 - static_cast<double>(num_dropped))),
              0.125f};  // 1 / sqrt(64)
  return ffi::Error::Success();
}

template <typename Buffer>
auto Data(Buffer& buffer) {
  return reinterpret_cast<uint16_t*>(buffer.untyped_data());
}

ffi::Error Forward(STREAM Bfloat16s qkv, Integers example_ids, Words key, ffi::Result<Bfloat16s> context,
                   ffi::Result<Floats> log_sums, int32_t num_heads, int64_t num_dropped) {
  Grid grid;
  Numbers numbers;
  if (ffi::Error error = Check(qkv, example_ids, num_heads, num_dropped, &grid, &numbers); error.failure()) return error;
  if (!grid.rows) return ffi::Error::Success();
  return LAUNCH(AttentionForward, static_cast<const uint16_t*>(Data(qkv)),
                static_cast<const int*>(example_ids.typed_data()), static_cast<const uint32_t*>(key.typed_data()),
                Data(*context), log_sums->typed_data(), static_cast<int>(num_heads), numbers.width, numbers.num_dropped,
                numbers.factor, numbers.scale);
}

ffi::Error Backward(STREAM Bfloat16s qkv, Integers example_ids, Words key, Bfloat16s context, Floats log_sums,
                    Bfloat16s grad_context, ffi::Result<Bfloat16s> grad_qkv, ffi::Result<Floats> row_sums,
                    int32_t num_heads, int64_t num_dropped) {
  Grid grid;
  Numbers numbers;
  if (ffi::Error error = Check(qkv, example_ids, num_heads, num_dropped, &grid, &numbers); error.failure()) return error;
  if (!grid.rows) return ffi::Error::Success();
  const uint16_t *values = Data(qkv), *grads = Data(grad_context);
  const int* ids = example_ids.typed_data();
  const uint32_t* words = key.typed_data();
  const float* logs = log_sums.typed_data();
  float* sums = row_sums->typed_data();
  const int heads = num_heads;
  if (ffi::Error error = LAUNCH(AttentionQueryGradient, values, ids, words, static_cast<const uint16_t*>(Data(context)),
                                logs, grads, Data(*grad_qkv), sums, heads, numbers.width, numbers.num_dropped,
                                numbers.factor, numbers.scale);
      error.failure()) {
    return error;
  }
  return LAUNCH(AttentionKeyValueGradient, values, ids, words, logs, grads, static_cast<const float*>(sums),
                Data(*grad_qkv), heads, numbers.width, numbers.num_dropped, numbers.factor, numbers.scale);
}

}  // namespace

// Exported, so that other programs that hold XLA, such as JAX, can register them, too.
XLA_FFI_DEFINE_HANDLER_SYMBOL(BertPretrainAttention, Forward,
                              WithStream()
                                  .Arg<Bfloat16s>().Arg<Integers>().Arg<Words>()
                                  .Ret<Bfloat16s>().Ret<Floats>()
                                  .Attr<int32_t>("num_heads").Attr<int64_t>("num_dropped"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(BertPretrainAttentionGrad, Backward,
                              WithStream()
                                  .Arg<Bfloat16s>().Arg<Integers>().Arg<Words>()
                                  .Arg<Bfloat16s>().Arg<Floats>().Arg<Bfloat16s>()
                                  .Ret<Bfloat16s>().Ret<Floats>()
                                  .Attr<int32_t>("num_heads").Attr<int64_t>("num_dropped"));

}  // namespace bert_pretrain

// Makes the functions known to TensorFlow's XLA. Returns 0, or another number where it refuses them.
extern "C" int BertPretrainRegister() {
  const XLA_FFI_Api* api = xla::ffi::GetXlaFfiApi();
  return xla::ffi::Ffi::RegisterStaticHandler(api, "bert_pretrain_attention", bert_pretrain::kPlatform,
                                              bert_pretrain::BertPretrainAttention) != nullptr ||
         xla::ffi::Ffi::RegisterStaticHandler(api, "bert_pretrain_attention_grad", bert_pretrain::kPlatform,
                                              bert_pretrain::BertPretrainAttentionGrad) != nullptr;
}

#ifndef EMULATED_DEVICE
// image: the kernels as NVRTC compiled them for this process's GPU.
extern "C" void BertPretrainSetImage(const char* image, size_t size) {
  bert_pretrain::Driver::Get().SetImage(image, size);
}
#endif
