#include "optimisers.h"

#include <stdexcept>

namespace pymgan {
namespace {

constexpr const char* kNames[] = {"sgd",     "normalised", "momentum",   "nesterov",
                                  "rmsprop", "adam",       "optimistic", "extragradient"};

}  // namespace

const char* name(Optimiser kind) { return kNames[static_cast<int>(kind)]; }

Optimiser optimiser_of(const std::string& name) {
  std::string known;
  for (int i = 0; const char* each : kNames) {
    if (name == each) return static_cast<Optimiser>(i);
    known += (i++ ? ", " : "") + std::string(each);
  }
  throw std::invalid_argument("optimisers: expected some of " + known + ", got '" + name + "'");
}

int moments_of(Optimiser kind) {
  return formulas::visit(kind, [](auto optimiser) { return decltype(optimiser)::kMoments; });
}

bool adjoint_reads_gradient(Optimiser kind) {
  return formulas::visit(kind, [](auto optimiser) { return decltype(optimiser)::kReadsGradient; });
}

}  // namespace pymgan
