// Energy distance 2 E|a-b| - E|a-a'| - E|b-b'| between two samples, unbiased (diagonals left out; a single sample has
// no inner distance), |x| = sqrt(sum x^2 + epsilon), and its derivative with respect to a.
#pragma once

#include <cstdint>

namespace pymgan::cpu {

inline constexpr double kDistanceEpsilon = 1e-12;

// a [n][features], b [m][features]; cotangent [n][features].
template <class T>
double energy_distance(const T* a, int n, const T* b, int m, int features, double epsilon, T* cotangent);

extern template double energy_distance(const float*, int, const float*, int, int, double, float*);
extern template double energy_distance(const double*, int, const double*, int, int, double, double*);

}  // namespace pymgan::cpu
