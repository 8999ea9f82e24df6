// What every CUDA operator needs: dtypes as float, 16-byte loads and stores, sums in a fixed order, launch errors.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../ops.h"

namespace ganfast::cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// 16 bytes of T.
template <class T> struct alignas(16) Pack {
  static constexpr int N = 16 / sizeof(T);
  T v[N];
  // One store of 16 bytes; of an assignment the compiler may make one for each element.
  __device__ __forceinline__ void to(T* p) const {
    uint4 bits;
    memcpy(&bits, v, sizeof bits);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w));
  }
};
template <class... P> __host__ __device__ __forceinline__ bool aligned16(P... p) {
  return ((reinterpret_cast<uintptr_t>(p) | ...) & 15) == 0;
}

// The sum of v over the block, in thread 0; the order depends on nothing but THREADS.
template <int THREADS> __device__ __forceinline__ float block_sum(float v) {
  __shared__ float warps[THREADS / 32];
  for (int step = 16; step > 0; step >>= 1) v += __shfl_down_sync(~0u, v, step);
  __syncthreads();  // the previous call's readers are done
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0.f;
  if (threadIdx.x == 0)
    for (int w = 0; w < THREADS / 32; ++w) v += warps[w];
  return v;
}

inline void check_launch(const char* name) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string("ganfast::") + name + ": " + cudaGetErrorString(error));
}

// Calls f with a null pointer of the dtype's type.
template <class F> void with_dtype(int dtype, F f) {
  if (dtype == F16) f(static_cast<__half*>(nullptr));
  else if (dtype == BF16) f(static_cast<__nv_bfloat16*>(nullptr));
  else f(static_cast<float*>(nullptr));
}

}  // namespace ganfast::cuda
