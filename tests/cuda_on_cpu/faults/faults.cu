// Kernels that go wrong, each in one way, and some that do not.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace {

__global__ void coordinates(float* out) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[i] += i;
}
__global__ void shuffles(float* out) {  // of a warp, by rows of 8 lanes
  const float v = threadIdx.x;
  out[threadIdx.x] = __shfl_down_sync(~0u, v, 3, 8);
  out[32 + threadIdx.x] = __shfl_up_sync(~0u, v, 3, 8);
  out[64 + threadIdx.x] = __shfl_xor_sync(~0u, v, 9);
  out[96 + threadIdx.x] = __shfl_sync(~0u, v, 5, 8);
  if (threadIdx.x % 2) out[128 + threadIdx.x] = __shfl_xor_sync(0xaaaaaaaa, v, 2);
}
__global__ void turned(float* out) {  // dynamic shared memory
  extern __shared__ float all[];
  all[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
}
__global__ void not_written(float* out) {
  __shared__ float all[64];
  if (threadIdx.x != 7) all[threadIdx.x] = 1.f;
  __syncthreads();
  out[threadIdx.x] = all[threadIdx.x];
}
__global__ void no_barrier(float* out) {
  __shared__ float all[64];
  all[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = all[63 - threadIdx.x];
}

__global__ void two_barriers(float*) {
  if (threadIdx.x < 16) __syncthreads();
  else
    __syncthreads();
}
__global__ void early_exit(float* out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_down_sync(~0u, 1.f, 1);
}
__global__ void other_shuffle(float* out) {
  if (threadIdx.x < 16) out[0] = __shfl_down_sync(~0u, 1.f, 1);
  else
    out[1] = __shfl_down_sync(~0u, 1.f, 1);
}
__global__ void not_in_its_mask(float* out) { out[threadIdx.x] = __shfl_xor_sync(0xffff, 1.f, 1); }
__global__ void reads_outside_its_mask(float* out) {
  if (threadIdx.x < 16) out[0] = __shfl_xor_sync(0xffff, 1.f, 16);
}
__global__ void deadlock(float* out) {
  if (threadIdx.x % 32 < 16) __syncthreads();
  else
    out[0] = __shfl_xor_sync(~0u, 1.f, 1);
}
__global__ void misaligned_load(float* out) { *out = reinterpret_cast<const float4*>(out + 1 + threadIdx.x)->x; }
__global__ void misaligned_store(float* p) {
  const uint4 bits = {};
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w));
}
__global__ void null_store(float* out) { *(threadIdx.x == 5 ? nullptr : out) = 1.f; }
__global__ void wild_store(float* out) { out[(1ll << 40) + threadIdx.x] = 1.f; }
__global__ void beyond_shared(float* out) {
  __shared__ float all[64];
  float* p = all;
  p[threadIdx.x + 1] = 1.f;
  out[0] = all[0];
}
__global__ void beyond_array(float* out) {
  float all[4] = {};
  for (int i = 0; i <= (int)threadIdx.x; ++i) out[0] += all[i];
}
__global__ void overflow(float* out) { out[0] = 0x7fffffff + (int)threadIdx.x; }

void start(const std::string& name, float* out) {
  if (name == "coordinates") coordinates<<<dim3(2, 3, 4), dim3(5, 2, 3)>>>(out);
  if (name == "shuffles") shuffles<<<1, 32>>>(out);
  if (name == "turned") turned<<<1, 100, 100 * sizeof(float)>>>(out);
  if (name == "not_written") not_written<<<2, 64>>>(out);
  if (name == "no_barrier") no_barrier<<<1, 64>>>(out);
  if (name == "two_barriers") two_barriers<<<1, 64>>>(out);
  if (name == "early_exit") early_exit<<<1, 32>>>(out);
  if (name == "other_shuffle") other_shuffle<<<1, 32>>>(out);
  if (name == "not_in_its_mask") not_in_its_mask<<<1, 32>>>(out);
  if (name == "reads_outside_its_mask") reads_outside_its_mask<<<1, 32>>>(out);
  if (name == "deadlock") deadlock<<<1, 64>>>(out);
  if (name == "misaligned_load") misaligned_load<<<1, 1>>>(out);
  if (name == "misaligned_store") misaligned_store<<<1, 1>>>(out + 2);
  if (name == "null_store") null_store<<<1, 32>>>(out);
  if (name == "wild_store") wild_store<<<1, 1>>>(out);
  if (name == "beyond_shared") beyond_shared<<<1, 64>>>(out);
  if (name == "beyond_array") beyond_array<<<1, 5>>>(out);
  if (name == "overflow") overflow<<<1, 2>>>(out);
  if (name == "large_block") coordinates<<<1, 1025>>>(out);
}

}  // namespace

// Runs the kernel of that name; what went wrong, or "".
extern "C" __attribute__((visibility("default"))) const char* run(const char* name, float* out) {
  static std::string message;
  message.clear();
  try {
    start(name, out);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  return message.c_str();
}
