// Relative scores of the relativistic average GAN (Jolicoeur-Martineau 2018, arXiv 1807.00734): a score less the mean
// score of the other kind, t = R s, and what its transpose makes of cotangents. In place, fakes first.
#pragma once

namespace pymgan::cpu {

template <class T>
double mean_of(const T* x, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += x[i];
  return sum / n;
}

template <class T>
void to_relative(T* s, int fakes, int reals) {
  const double fake = mean_of(s, fakes), real = mean_of(s + fakes, reals);
  for (int i = 0; i < fakes + reals; ++i) s[i] -= static_cast<T>(i < fakes ? real : fake);
}

template <class T>
void from_relative(T* c, int fakes, int reals) {
  const double of_fakes = mean_of(c, fakes) * fakes / reals, of_reals = mean_of(c + fakes, reals) * reals / fakes;
  for (int i = 0; i < fakes + reals; ++i) c[i] -= static_cast<T>(i < fakes ? of_reals : of_fakes);
}

}  // namespace pymgan::cpu
