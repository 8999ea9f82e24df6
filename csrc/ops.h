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

// `batch` samples of `size` elements, one after another.
struct Samples {
  int64_t batch, size;
  int dtype;
};
// φ of a gradient penalty: φ(n)/batch = scale/2·(n − target)², or with max(0, n − target); scale = 2·weight/batch.
struct Phi {
  double scale;
  float target;
  bool one_sided;
};
// pairwise_l1: x [rows, nk, kd] against y [others, nk, kd], or, where others < 0, against themselves; one dtype, which
// is also that of every other tensor of the call. e_ij = exp(−Σ_d |x_id − y_jd|), s = sign(x_id − y_jd), per kernel.
struct Pairs {
  const void *x, *y;
  int64_t rows, others, nk, kd;
  int dtype;
};
// batch_norm_act: y [batch, channels, plane] of one dtype; channels last is plane = 1. nullptr for weight: 1, bias: 0.
struct BatchNorm {
  int64_t batch, channels, plane;
  int dtype;
  const float *weight, *bias;
  bool use_batch;  // statistics of the batch, else given ones
  double eps;
  int activation;  // its place in cpu::activations()
  float slope;
};
// A parameter of norm_act: of 1 dimension [channels] or 2 [batch, channels] fp32; of 3 of y's dtype and as y lies; 0: absent.
struct Affine {
  const void* of;
  int dims;
};
// norm_act: y [batch, channels, plane] of one dtype, or [batch, plane, channels] (last). Statistics of each of `groups`
// groups of neighbouring channels of each sample, or, groups = 0, of each channel over the batch.
struct NormAct {
  int64_t batch, channels, plane;
  bool last;
  int dtype;
  Affine weight, bias;  // if one has 3 dimensions, both have
  bool given;           // statistics are constants
  int64_t groups;
  double eps;
  int activation;
  float slope;
};
// running += momentum·(batch − running), with the unbiased variance; momentum < 0: 1/batches, the cumulative average.
// batches += 1. nullptr: there is none; mean and var are there together.
struct Running {
  float *mean, *var;
  int64_t* batches;
  double momentum;
};

namespace cpu {
// loss = Σ_sides mean(softplus(x) − target·x)
void sigmoid_bce(Side real, Side fake, int dtype, float* loss, int threads);
// dx = g·(σ(x) − target)/n for each side
void sigmoid_bce_backward(const float* g, Side real, Side fake, int dtype, void* dreal, void* dfake, int threads);
// dg = Σ_sides Σ c·(σ(x) − target)/n and dx = c·g·σ'(x)/n, c the cotangent of the backward's dx (nullptr: zero)
void sigmoid_bce_double_backward(const void* creal, const void* cfake, const float* g, Side real, Side fake, int dtype,
                                 float* dg, void* dreal, void* dfake, int threads);
// out_i = epsilon_i·real_i + (1 − epsilon_i)·fake_i; nullptr for real or fake: zero
void interpolate(const void* real, const void* fake, const float* epsilon, Samples s, void* out, int threads);
// penalty = (1/B) Σ φ(n_i), norms n_i = ‖g_i‖₂, seed = ∂penalty/∂g (nullptr: not wanted)
void gradient_penalty(const void* g, Samples s, Phi phi, float* penalty, float* norms, void* seed, int threads);
// dg = (c_penalty·φ'/B + c_norms)·g/n; nullptr for one of the two: zero
void gradient_penalty_backward(const float* c_penalty, const float* c_norms, const void* g, const float* norms, Samples s,
                               Phi phi, void* dg, int threads);
// From c, the cotangent of that dg, those of c_penalty, c_norms and g.
void gradient_penalty_double_backward(const void* c, const float* c_penalty, const float* c_norms, const void* g,
                                      const float* norms, Samples s, Phi phi, float* dc_penalty, float* dc_norms, void* dg,
                                      int threads);

// o_i = Σ_j e_ij, [rows, nk]
void pairwise_l1(Pairs pairs, void* o, int threads);
// drows_id = −g_i Σ_j e_ij s_ijd and dothers_jd = Σ_i g_i e_ij s_ijd; others < 0: drows is the sum of both
void pairwise_l1_backward(const void* g, Pairs pairs, void* drows, void* dothers, int threads);
// with t_ij = Σ_d s_ijd (cothers_jd − crows_id), c the cotangents of the backward's results: dg_i = Σ_j e_ij t_ij, and
// drows, dothers as above with e·t for e
void pairwise_l1_double_backward(const void* crows, const void* cothers, const void* g, Pairs pairs, void* dg, void* drows,
                                 void* dothers, int threads);

// the names of the activations, separated by spaces; the first is None
const char* activations();
// a = act(weight·(y − mean)/√(var + eps) + bias); moments [2, channels], mean and (biased) var, are results where
// use_batch. Updates the running statistics.
void batch_norm_act(const void* y, BatchNorm norm, Running running, void* a, float* moments, int threads);
// dz = da·act': sums [2, channels] = Σ dz and Σ dz·x̂; dy = weight/√(var + eps)·(dz − (Σ dz + x̂·Σ dz·x̂)/n), or without
// the sums
void batch_norm_act_backward(const void* da, const void* y, BatchNorm norm, const float* moments, void* dy, float* sums,
                             int threads);
// a = act(weight·(y − mean)/√(var + eps) + bias); moments [2, batch, groups] or [2, 1, channels], mean and (biased) var,
// are given, or results
void norm_act(const void* y, NormAct norm, const float* given, void* a, float* moments, int threads);
// dz = da·act'; dweight and dbias like weight and bias: sums of dz·x̂ and dz; with u = weight·dz
// dy = (u − mean(u) − x̂·mean(u·x̂))/√(var + eps), or of given statistics without the means
void norm_act_backward(const void* da, const void* y, NormAct norm, const float* moments, void* dy, void* dweight,
                       void* dbias, int threads);
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
void interpolate(const void* real, const void* fake, const float* epsilon, Samples s, void* out, void* stream);
// Doubles of workspace for the sums of samples that one block cannot hold.
int64_t gradient_penalty_workspace(Samples s);
void gradient_penalty(const void* g, Samples s, Phi phi, double* workspace, float* penalty, float* norms, void* seed,
                      void* stream);
void gradient_penalty_backward(const float* c_penalty, const float* c_norms, const void* g, const float* norms, Samples s,
                               Phi phi, void* dg, void* stream);
void gradient_penalty_double_backward(const void* c, const float* c_penalty, const float* c_norms, const void* g,
                                      const float* norms, Samples s, Phi phi, double* workspace, float* dc_penalty,
                                      float* dc_norms, void* dg, void* stream);

// kd <= 32
void pairwise_l1(Pairs pairs, void* o, void* stream);
void pairwise_l1_backward(const void* g, Pairs pairs, void* drows, void* dothers, void* stream);
void pairwise_l1_double_backward(const void* crows, const void* cothers, const void* g, Pairs pairs, void* dg, void* drows,
                                 void* dothers, void* stream);
}  // namespace cuda
#endif

}  // namespace ganfast
