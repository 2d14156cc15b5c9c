// Samples between the caller's rows, in torch's order (channel, site), and ours, as a Form says.
#pragma once

#include <algorithm>

#include "../layout.h"

namespace pymgan::cpu {

// source [*][features], of which `picked` [rows] are wanted (null: the first), to out [rows][ld]; padding becomes zero.
template <class T>
void rows_in(const Form& form, const T* source, const int32_t* picked, int rows, int64_t ld, T* out) {
  const int64_t features = form.features();
  for (int r = 0; r < rows; ++r, out += ld) {
    const T* row = source + (picked ? picked[r] : r) * features;
    if (form.flat()) {
      std::fill(std::copy_n(row, features, out), out + ld, T{0});
      continue;
    }
    std::fill_n(out, ld, T{0});
    for (int s = 0; s < form.sites; ++s)
      for (int c = 0; c < form.channels; ++c) out[s * form.ld + c] = row[c * form.sites + s];
  }
}

// source [rows][ld] to target [rows][features]
template <class T>
void rows_out(const Form& form, const T* source, int rows, int64_t ld, T* target) {
  for (int r = 0; r < rows; ++r, source += ld, target += form.features())
    for (int s = 0; s < form.sites; ++s)
      for (int c = 0; c < form.channels; ++c) target[c * form.sites + s] = source[s * form.ld + c];
}

// out [rows][ld]: numbers [rows] (null: ones) in column 0, then padding
template <class T>
void spread(const T* numbers, int rows, int64_t ld, T* out) {
  std::fill_n(out, rows * ld, T{0});
  for (int r = 0; r < rows; ++r) out[r * ld] = numbers ? numbers[r] : T{1};
}

// out [channels] += the sum of x [rows][ld] over rows and sites
template <class T>
void sum_sites(const T* x, const Form& form, int rows, int64_t ld, T* out) {
  for (int r = 0; r < rows; ++r, x += ld)
    for (int s = 0; s < form.sites; ++s)
      for (int c = 0; c < form.channels; ++c) out[c] += x[s * form.ld + c];
}

}  // namespace pymgan::cpu
