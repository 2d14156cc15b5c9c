// Memory that notices what a kernel should not have written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "check.h"

using Doubles = std::vector<double>;

// 64-byte aligned, filled with NaN, sentinels on both sides.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n) : n_(n), raw_(new char[(n + 2 * kGuard) * sizeof(T) + 64]) {
    const auto address = reinterpret_cast<uintptr_t>(raw_.get()) + kGuard * sizeof(T);
    data_ = reinterpret_cast<T*>((address + 63) / 64 * 64);
    std::fill(data_, data_ + n, std::numeric_limits<T>::quiet_NaN());
    for (int i = 1; i <= kGuard; ++i) data_[-i] = sentinel(i);
    for (int i = 0; i < kGuard / 2; ++i) data_[n + i] = sentinel(i);
  }
  ~Buffer() {
    bool whole = true;
    for (int i = 1; i <= kGuard / 2; ++i) whole &= data_[-i] == sentinel(i);
    for (int i = 0; i < kGuard / 2; ++i) whole &= data_[n_ + i] == sentinel(i);
    check::that(whole, "a sentinel was overwritten");
  }
  T* get() { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  int64_t size() const { return n_; }
  Doubles copy() const { return Doubles(data_, data_ + n_); }
  template <class F>
  void fill(const F& f) {
    for (int64_t i = 0; i < n_; ++i) data_[i] = static_cast<T>(f(i));
  }

 private:
  static constexpr int kGuard = 32;
  static T sentinel(int i) { return static_cast<T>(12345 + i); }
  int64_t n_;
  std::unique_ptr<char[]> raw_;
  T* data_;
};
