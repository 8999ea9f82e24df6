// Every compiled operator: plain functions over raw pointers, sizes and (CUDA) a stream.
// All tensors are contiguous; Python has checked rank, sizes, dtype and device before it takes a pointer.
// n < 0 says that a side is absent. Counts and offsets are 64-bit.
#pragma once
#include <cstdint>

namespace ganfast {

enum DType : int { F32 = 0, F16 = 1, BF16 = 2 };  // the same codes as ganfast/ops/_extension.py

// One side (real or fake) of a sigmoid_bce call: n logits x of one dtype and their target.
struct Side {
  const void* x;
  int64_t n;
  float target;
};
// A sum over an empty side is 0, as an absent one's; only its mean is nan.
inline int64_t some(int64_t n) { return n > 0 ? n : -1; }

namespace cpu {
// loss = Σ_sides mean(softplus(x) − target·x)
void sigmoid_bce(Side real, Side fake, int dtype, float* loss, int threads);
// dx = g·(σ(x) − target)/n for each side
void sigmoid_bce_backward(const float* g, Side real, Side fake, int dtype, void* dreal, void* dfake, int threads);
// dg = Σ_sides Σ c·(σ(x) − target)/n and dx = c·g·σ'(x)/n, c the cotangent of the backward's dx (nullptr: zero)
void sigmoid_bce_double_backward(const void* creal, const void* cfake, const float* g, Side real, Side fake, int dtype,
                                 float* dg, void* dreal, void* dfake, int threads);
}  // namespace cpu

#ifdef GANFAST_CUDA
namespace cuda {
// "" when kernels of this library run on `device`, else the reason.
const char* unusable(int device);
// Floats of workspace that the reductions below need for that many elements.
int64_t sigmoid_bce_workspace(int64_t total);
void sigmoid_bce(Side real, Side fake, int dtype, float* workspace, float* loss, void* stream);
void sigmoid_bce_backward(const float* g, Side real, Side fake, int dtype, void* dreal, void* dfake, void* stream);
void sigmoid_bce_double_backward(const void* creal, const void* cfake, const float* g, Side real, Side fake, int dtype,
                                 float* workspace, float* dg, void* dreal, void* dfake, void* stream);
}  // namespace cuda
#endif

}  // namespace ganfast
