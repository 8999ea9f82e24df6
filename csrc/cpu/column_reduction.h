// A strip: rows of neighbouring elements, each column of one channel. Sums over it are made ROWS rows at a time, in
// registers.
#pragma once
#include <cstdint>
#include <type_traits>

#include "vec.h"

namespace ganfast::cpu {

constexpr int ROWS = 8;  // held in registers

// Rows begin … end of those that start at first + (i / inner)·outer + (i % inner)·width.
struct Strip {
  int64_t first, begin, end, width, inner, outer;
};
// The starts of a strip's rows, one after another.
struct Cursor {
  int64_t at, k, width, inner, jump;
};
GANFAST_INLINE Cursor cursor(const Strip& s) {
  const int64_t k = s.begin % s.inner;
  return {s.first + s.begin / s.inner * s.outer + k * s.width, k, s.width, s.inner, s.outer - s.inner * s.width};
}
GANFAST_INLINE int64_t next(Cursor& c) {
  const int64_t start = c.at;
  c.at += c.width;
  if (++c.k == c.inner) c.k = 0, c.at += c.jump;
  return start;
}
// How far ahead of an element to fetch, in elements: 4 KB where rows follow one another, which the processor does not see
// in the way that eight of them are read at once; otherwise each row is a stream of its own, and it does.
constexpr int64_t AHEAD = 4096;
template <class T> GANFAST_INLINE int64_t ahead(const Strip& s) {
  return s.inner == 1 && s.outer == s.width ? AHEAD / (int64_t)sizeof(T) : 0;
}
// visit(start) for all rows of a strip: what is also written goes fastest row by row.
template <class Visit> GANFAST_INLINE void row_by_row(const Strip& s, Visit visit) {
  Cursor c = cursor(s);
  for (int64_t i = s.begin; i < s.end; ++i) visit(next(c));
}
// visit(starts, how many) for all rows of a strip, N at a time and then one by one: sums stay in registers.
template <int N = ROWS, class Visit> GANFAST_INLINE void over_rows(const Strip& s, Visit visit) {
  Cursor c = cursor(s);
  int64_t rows[N], i = s.begin;
  if constexpr (N > 1) {
    for (; i + N <= s.end; i += N) {
      for (int r = 0; r < N; ++r) rows[r] = next(c);
      visit(rows, std::integral_constant<int, N>());
    }
  }
  for (; i < s.end; ++i) {
    rows[0] = next(c);
    visit(rows, std::integral_constant<int, 1>());
  }
}
// The lanes of a vector that are in the row: all, or the first few.
struct All {};
struct Some {
  int64_t count;
};
template <class T> GANFAST_INLINE vfloat get(All, const T* p) { return load(p); }
template <class T> GANFAST_INLINE vfloat get(Some some, const T* p) { return load_some(p, some.count); }
template <class T> GANFAST_INLINE void put(All, T* p, vfloat v) { store(p, v); }
template <class T> GANFAST_INLINE void put(Some some, T* p, vfloat v) { store_some(p, v, some.count); }
// visit(column, lanes) for all vectors of a row.
template <class Visit> GANFAST_INLINE void over_columns(int64_t width, Visit visit) {
  int64_t j = 0;
  for (; j + LANES <= width; j += LANES) visit(j, All());
  if (j < width) visit(j, Some{width - j});
}
template <int N> GANFAST_INLINE vfloat sum_of(const vfloat* v) {
  if constexpr (N == 1) return v[0];
  else return sum_of<N / 2>(v) + sum_of<N / 2>(v + N / 2);
}

}  // namespace ganfast::cpu
