// Cuts one buffer of the caller's into consecutive parts; over no buffer it only counts them, so that what is asked for
// and what is used are the same lines.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace pymgan::cpu {

template <class T>
class Carver {
 public:
  explicit Carver(T* buffer = nullptr) : buffer_(buffer) {}

  // Aligned as kernels want it. Null for no elements, and where it only counts.
  T* take(int64_t elements) {
    T* part = buffer_ && elements > 0 ? buffer_ + used_ : nullptr;
    used_ += padded(elements);
    return part;
  }
  int64_t used() const { return used_; }

 private:
  T* buffer_;
  int64_t used_ = 0;
};

// Elements that the constructor of Parts, from a Carver and `arguments`, takes.
template <class Parts, class T, class... Arguments>
int64_t elements_of(const Arguments&... arguments) {
  Carver<T> counter;
  Parts parts(counter, arguments...);
  return counter.used();
}

}  // namespace pymgan::cpu
