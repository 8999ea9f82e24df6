// __half, by the compiler's own type of 16 bits; conversions round to nearest, ties to even.
#pragma once

struct __half { _Float16 value; };
static_assert(sizeof(__half) == 2);
inline float __half2float(__half x) { return (float)x.value; }
inline __half __float2half_rn(float x) { return {(_Float16)x}; }
