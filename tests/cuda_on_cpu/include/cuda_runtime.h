// As much of CUDA as csrc/cuda uses, and its neighbours.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__
#define __restrict__
#define __launch_bounds__(...)

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define __syncthreads() emulator::block_barrier(EMULATOR_HERE)
// the mask is an argument of them all: lanes that it names and that have left, or wait elsewhere, are a fault
#define __syncwarp(...) ((void)emulator::shuffle(emulator::mask_of(__VA_ARGS__), 0, 32, EMULATOR_HERE))
#define EMULATOR_SHUFFLE(mask, v, source) emulator::shuffle(mask, v, source, EMULATOR_HERE)
#define __shfl_sync(mask, v, lane, ...) EMULATOR_SHUFFLE(mask, v, emulator::at(lane, emulator::width_of(__VA_ARGS__)))
#define __shfl_up_sync(mask, v, step, ...) EMULATOR_SHUFFLE(mask, v, emulator::below(step, emulator::width_of(__VA_ARGS__)))
#define __shfl_down_sync(mask, v, step, ...) EMULATOR_SHUFFLE(mask, v, emulator::above(step, emulator::width_of(__VA_ARGS__)))
#define __shfl_xor_sync(mask, v, bits, ...) EMULATOR_SHUFFLE(mask, v, emulator::across(bits, emulator::width_of(__VA_ARGS__)))

namespace emulator {
inline unsigned mask_of(unsigned mask = ~0u) { return mask; }
inline unsigned width_of(unsigned width = 32) { return width; }
}  // namespace emulator

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };

inline float __int_as_float(int x) { float f; memcpy(&f, &x, 4); return f; }
inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
inline float __expf(float x) { return exp2f(x * 1.4426950408889634f); }
template <class T> T __ldg(const T* p) { return *p; }

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
struct cudaFuncAttributes {};
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
template <class Kernel> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error: emulated on a CPU"; }
