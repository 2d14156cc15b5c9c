// A float with the functions that formulas.h and optimisers.h ask for.
#pragma once

#include <cmath>

#include "../both.h"
#include "block.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

struct Real {
  float v = 0;
  PYMGAN_BOTH Real() {}
  PYMGAN_BOTH Real(float x) : v(x) {}
  PYMGAN_BOTH explicit Real(double x) : v(static_cast<float>(x)) {}
};

PYMGAN_BOTH inline Real operator+(Real a, Real b) { return a.v + b.v; }
PYMGAN_BOTH inline Real operator-(Real a, Real b) { return a.v - b.v; }
PYMGAN_BOTH inline Real operator*(Real a, Real b) { return a.v * b.v; }
PYMGAN_BOTH inline Real operator/(Real a, Real b) { return a.v / b.v; }
PYMGAN_BOTH inline Real operator-(Real a) { return -a.v; }
PYMGAN_BOTH inline Real exp(Real a) { return expf(a.v); }
PYMGAN_BOTH inline Real expm1(Real a) { return expm1f(a.v); }
PYMGAN_BOTH inline Real log1p(Real a) { return log1pf(a.v); }
PYMGAN_BOTH inline Real tanh(Real a) { return tanhf(a.v); }
PYMGAN_BOTH inline Real erf(Real a) { return erff(a.v); }
PYMGAN_BOTH inline Real sqrt(Real a) { return sqrtf(a.v); }
PYMGAN_BOTH inline Real abs(Real a) { return fabsf(a.v); }
PYMGAN_BOTH inline Real max(Real a, Real b) { return a.v < b.v ? b : a; }  // NaN in the first stays
PYMGAN_BOTH inline Real where_positive(Real c, Real a, Real b) { return c.v > 0 ? a : b; }

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
