// The derivatives of a gradient penalty's φ, for the CPU (in double) and CUDA (in float).
#pragma once
#include "ops.h"

#ifdef __CUDACC__
#define GANFAST_BOTH __host__ __device__ __forceinline__
#else
#define GANFAST_BOTH inline
#endif

namespace ganfast {

// Of the norm n: 1/n (0 below the smallest normal number), φ'/B, φ'/(B·n), φ''/B − φ'/(B·n). A nan stays a nan.
template <class F> struct Curve { F inverse, slope, flat, bend; };
template <class F> GANFAST_BOTH Curve<F> curve_of(Phi phi, F n) {
  const F scale = (F)phi.scale, target = (F)phi.target;
  const F inverse = n < (F)1.17549435e-38f ? (F)0 : (F)1 / n;
  if (phi.one_sided && n < target) return {inverse, 0, 0, 0};
  const F slope = scale * (n - target);
  if (target == 0) return {inverse, slope, scale, 0};
  return {inverse, slope, slope * inverse, scale * target * inverse};
}
// φ(n)/B.
template <class F> GANFAST_BOTH F term_of(Phi phi, F n) {
  const F excess = n - (F)phi.target;
  return phi.one_sided && excess < 0 ? (F)0 : (F)phi.scale / 2 * excess * excess;
}

// What a sample's result is made of: out = along·(g·inverse) + across·c.
template <class F> struct Mix { F inverse, along, across; };
// dg from the cotangents p of the penalty and q of the norm.
template <class F> GANFAST_BOTH Mix<F> first_mix(const Curve<F>& curve, F p, F q) {
  return {curve.inverse, p * curve.slope + q, 0};
}
// The same one order up, s = (g·inverse)·c.
template <class F> GANFAST_BOTH Mix<F> second_mix(const Curve<F>& curve, F p, F q, F s) {
  const F across = p * curve.flat + q * curve.inverse;
  return {curve.inverse, (p * curve.bend - q * curve.inverse) * s, across};
}

}  // namespace ganfast
