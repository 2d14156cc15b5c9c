// Assertions that count instead of stopping: every failure of a run is seen.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace check {

inline int failures = 0, checks = 0;

inline void fail(const std::string& what) {
  if (++failures <= 40) std::printf("FAIL %s\n", what.c_str());
}

inline void that(bool ok, const std::string& what) {
  ++checks;
  if (!ok) fail(what);
}

// |got - wanted| <= bound; NaN fails.
inline void near(double got, double wanted, double bound, const std::string& what) {
  ++checks;
  if (std::abs(got - wanted) <= bound || got == wanted) return;
  char text[160];
  std::snprintf(text, sizeof text, ": got %.9g, wanted %.9g, off by %.3g, allowed %.3g", got, wanted,
                std::abs(got - wanted), bound);
  fail(what + text);
}

inline int report() {
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures || !checks;
}

}  // namespace check
