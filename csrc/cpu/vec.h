// Vectors of 16 floats (GCC's vector extension), loads and stores of every dtype, exp and log1p.
// One source; the compiler makes it AVX-512, AVX2, SSE2 or NEON, with the same lanes: the order of a sum never changes.
#pragma once
#include <cstdint>
#include <cstring>

// GANFAST_CLONES compiles a function for several instruction sets and picks one at run time (glibc's ifunc);
// elsewhere it vanishes. What such a function calls must be inlined: GANFAST_INLINE.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define GANFAST_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#elif defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define GANFAST_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define GANFAST_CLONES
#endif
#define GANFAST_INLINE static inline __attribute__((always_inline))

namespace ganfast {

constexpr int LANES = 16;
typedef float vfloat __attribute__((vector_size(4 * LANES)));
typedef int32_t vint __attribute__((vector_size(4 * LANES)));
typedef uint32_t vuint __attribute__((vector_size(4 * LANES)));
typedef uint16_t vhalf __attribute__((vector_size(2 * LANES)));

struct half_t { uint16_t bits; };
struct bfloat_t { uint16_t bits; };

GANFAST_INLINE vfloat splat(float x) { return vfloat{} + x; }
GANFAST_INLINE vint splat(int32_t x) { return vint{} + x; }
// Masks, all ones or zeros, made by arithmetic. A comparison of 64 bytes GCC does lane by lane where there is no AVX-512,
// and with it through an all-ones register that makes each turn of a loop wait for the one before.
GANFAST_INLINE vint less(vint a, vint b) { return (a - b) >> 31; }  // a − b must not overflow
GANFAST_INLINE vint negative(vfloat x) { return (vint)x >> 31; }  // the sign bit
GANFAST_INLINE vint not_positive(vfloat x) {
  const vuint u = (vuint)x;
  return (vint)(u | (u - 1u)) >> 31;
}
GANFAST_INLINE vfloat select(vint mask, vfloat yes, vfloat no) { return (vfloat)((mask & (vint)yes) | (~mask & (vint)no)); }
GANFAST_INLINE vfloat vabs(vfloat x) { return (vfloat)((vuint)x & 0x7fffffffu); }

GANFAST_INLINE vfloat load(const float* p) { vfloat v; std::memcpy(&v, p, sizeof v); return v; }
GANFAST_INLINE vfloat load(const bfloat_t* p) {
  vhalf h; std::memcpy(&h, p, sizeof h);
  return (vfloat)(__builtin_convertvector(h, vuint) << 16);
}
GANFAST_INLINE vfloat load(const half_t* p) {
  vhalf h; std::memcpy(&h, p, sizeof h);
  vuint u = __builtin_convertvector(h, vuint);
  vuint magnitude = (u & 0x7fffu) << 13;
  vfloat value = (vfloat)magnitude * 0x1p112f;  // moves the exponent; subnormals come out right
  vint infinite = less(splat(0x0f7fffff), (vint)magnitude);  // inf and nan keep an exponent of ones
  return (vfloat)((vuint)value | ((vuint)infinite & 0x7f800000u) | ((u & 0x8000u) << 16));
}

GANFAST_INLINE void store(float* p, vfloat v) { std::memcpy(p, &v, sizeof v); }
GANFAST_INLINE void store(bfloat_t* p, vfloat v) {
  vuint u = (vuint)v;
  vuint rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;  // to nearest, ties to even
  vuint nan = (vuint)less(splat(0x7f800000), (vint)(u & 0x7fffffffu));
  vhalf h = __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0u), vhalf);
  std::memcpy(p, &h, sizeof h);
}
GANFAST_INLINE void store(half_t* p, vfloat v) {
  vuint sign = ((vuint)v >> 16) & 0x8000u;
  vuint magnitude = (vuint)v & 0x7fffffffu;
  vfloat small = (vfloat)magnitude + 0.5f;  // below 2^-14: the sum's last bits are the subnormal, rounded to even
  vuint subnormal = (vuint)small - 0x3f000000u;
  vuint normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;  // exponent − 112, ties to even
  vuint tiny = (vuint)less((vint)magnitude, splat(0x38800000)), huge = (vuint)less(splat(0x477fefff), (vint)magnitude);
  vuint nan = (vuint)less(splat(0x7f800000), (vint)magnitude);
  vuint bits = (tiny & subnormal) | (~tiny & normal);
  bits = (huge & 0x7c00u) | (~huge & bits);
  vhalf h = __builtin_convertvector(((nan & 0x7e00u) | (~nan & bits)) | sign, vhalf);
  std::memcpy(p, &h, sizeof h);
}

// The first `count` elements of p, zeros after; and their counterpart.
template <class T> GANFAST_INLINE vfloat load_some(const T* p, int64_t count) {
  T buffer[LANES] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
  return load(buffer);
}
template <class T> GANFAST_INLINE void store_some(T* p, vfloat v, int64_t count) {
  T buffer[LANES];
  store(buffer, v);
  for (int64_t i = 0; i < count; ++i) p[i] = buffer[i];
}
// v in the first `count` lanes, 0 after.
GANFAST_INLINE vfloat keep(vfloat v, int64_t count) {
  const vint lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return select(less(lane, splat((int32_t)count)), v, vfloat{});
}
GANFAST_INLINE double sum(vfloat v) {
  double total = 0;
  for (int i = 0; i < LANES; ++i) total += v[i];
  return total;
}

// exp(x) for x <= 0, within 2 ulp; 0 below −87.3; nan stays nan.
GANFAST_INLINE vfloat exp_negative(vfloat x) {
  vint magnitude = (vint)vabs(x);
  vint underflow = less(splat(0x42ae999a), magnitude) & less(magnitude, splat(0x7f800001));  // below −87.3, not nan
  x = select(underflow, splat(-87.3f), x);
  vfloat shifted = x * 1.44269504f + 12582912.f;  // 1.5·2^23: the rounded quotient in the low bits
  vfloat n = shifted - 12582912.f;
  vfloat r = x - n * 0.693145752f;  // ln 2 in two parts
  r = r - n * 1.42860677e-6f;
  vfloat p = splat(1.38368446e-3f);
  p = p * r + 8.37481581e-3f;
  p = p * r + 4.16682251e-2f;
  p = p * r + 1.66664198e-1f;
  p = p * r + 4.99999911e-1f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  vfloat power = (vfloat)(((vint)shifted - 0x4b400000 + 127) << 23);
  return select(underflow, vfloat{}, p * power);
}

// log(1 + e) for 0 <= e <= 1, relative error below 3e-7 (minimax polynomial of log1p(e)/e, 5e-9).
GANFAST_INLINE vfloat log1p_unit(vfloat e) {
  vfloat p = splat(-3.24401399e-3f);
  p = p * e + 1.98514126e-2f;
  p = p * e - 5.69594391e-2f;
  p = p * e + 1.06036454e-1f;
  p = p * e - 1.53055876e-1f;
  p = p * e + 1.96759373e-1f;
  p = p * e - 2.49541327e-1f;
  p = p * e + 3.33299637e-1f;
  p = p * e - 4.99999017e-1f;
  p = p * e + 1.f;
  return p * e;
}

// max(x, 0); a nan stays, whatever its sign.
GANFAST_INLINE vfloat positive(vfloat x) {
  const vint number = less((vint)vabs(x), splat(0x7f800001));
  return (vfloat)((vint)x & ~(negative(x) & number));
}
GANFAST_INLINE vfloat signed_as(vfloat magnitude, vfloat x) {
  return (vfloat)((vint)magnitude | ((vint)x & (int32_t)0x80000000));
}
GANFAST_INLINE vfloat vtanh(vfloat z) {
  const vfloat x = vabs(z), e = exp_negative(x * -2.f), s = z * z;
  vfloat p = splat(2.1869488e-2f);  // tanh(x)/x by its series, below 0.3
  p = p * s - 5.3968254e-2f;
  p = p * s + 1.3333334e-1f;
  p = p * s - 3.3333334e-1f;
  const vfloat small = x + x * s * p, t = (1.f - e) / (1.f + e);
  return signed_as(select(less((vint)x, splat(0x3e99999a)), small, t), z);
}
// e^x − 1 for x <= 0.
GANFAST_INLINE vfloat expm1_negative(vfloat x) {
  vfloat p = splat(1.3888889e-3f);  // (e^x − 1)/x by its series, above −0.25
  p = p * x + 8.333334e-3f;
  p = p * x + 4.1666668e-2f;
  p = p * x + 1.6666667e-1f;
  p = p * x + 0.5f;
  p = p * x + 1.f;
  return select(less((vint)vabs(x), splat(0x3e800000)), x * p, exp_negative(x) - 1.f);
}
GANFAST_INLINE vfloat sigmoid(vfloat z) {
  const vfloat e = exp_negative(-vabs(z));
  return select(negative(z), e, splat(1.f)) / (1.f + e);
}
// Absolute error below 4e-7: 1 − e^(−x²)·t·p(t) with t = 1/(1 + x/2), p fitted.
GANFAST_INLINE vfloat verf(vfloat z) {
  const vfloat x = vabs(z), t = 1.f / (1.f + 0.5f * x);
  vfloat p = splat(8.20375236e-02f);
  p = p * t - 3.28731326e-01f;
  p = p * t + 3.39249283e-01f;
  p = p * t + 8.22892201e-02f;
  p = p * t + 2.61226771e-01f;
  p = p * t + 2.81881947e-01f;
  p = p * t + 2.82046630e-01f;
  return signed_as(1.f - exp_negative(-x * x) * (p * t), z);
}

}  // namespace ganfast
