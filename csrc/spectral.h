// Spectral normalisation of D's weights (Miyato et al. 2018, arXiv 1802.05957): layers use N(W) = W / sigma with sigma
// = u^T W v, W [outputs][inputs]. u and v are state. A power iteration moves them once a step, at phi before it,
//   v = W^T u / |W^T u|,    u = W v / |W v|,
// and is not differentiated; all of D's evaluations in the step, wherever they are made, share the result. So sigma is
// linear in W. With R = u v^T, along w and for a cotangent g of N(W)
//   N'[w] = (w - <R, w> N(W)) / sigma,    N'^T[g] = (g - <N(W), g> R) / sigma,
//   the change of N'^T[g] along w = -(<R, w> N'^T[g] + <N'[w], g> R) / sigma.
// A product with a Hessian goes in through N' and comes out through N'^T; where D's own gradient g changes, the last
// line is added.
#pragma once

#include "graph.h"

namespace pymgan::lowering {

// The instructions for it, in one procedure.
class SpectralNorms {
 public:
  struct Weights {
    Ref used, sigma;  // D's parameters as its layers use them
  };
  struct Along {
    Ref w, sigma;  // their change, and sigma's
  };

  // step: what is iterated goes on to the next one.
  SpectralNorms(Graph& graph, bool step) : graph_(graph) {
    if (!*this) return;
    if (!step && graph.keep == Graph::Keep::read) {
      uv_ = graph.spectral(Slot::spectral_next, "uv_next");
      return;
    }
    Instr instr = of_discriminator(Op::spectral_iterate);
    instr.a0 = graph.spectral(Slot::spectral, "uv");
    instr.theta = graph.external(Slot::phi, "phi");
    instr.out = uv_ = graph.spectral(step ? Slot::spectral_next : Slot::temp, "uv_next");
    graph.emit(instr);
  }

  explicit operator bool() const { return !graph_.layout.spectral.empty(); }

  Weights weights(const std::string& name, Ref theta) {
    if (!*this) return {theta, {}};
    Instr instr = of_discriminator(Op::spectral_weights);
    instr.theta = theta;
    instr.q = uv_;
    instr.out = graph_.kept(graph_.parameters(name + ".D/sigma", Player::discriminator));
    instr.pre = graph_.kept(per_layer(name + ".sigma"));
    graph_.emit(instr);
    return {instr.out, instr.pre};
  }

  Along along(const std::string& name, const Weights& at, Ref w) {
    if (!*this) return {w, {}};
    Instr instr = of_discriminator(Op::spectral_tangent);
    instr.a0 = w;
    instr.b0 = at.used;
    instr.ref = at.sigma;
    instr.q = uv_;
    instr.out = graph_.parameters(name + ".w/sigma", Player::discriminator);
    instr.pre = per_layer(name + ".sigma'");
    graph_.emit(instr);
    return {instr.out, instr.pre};
  }

  // out (+)= the cotangent of D's parameters, of `cotangent`, that of what its layers use. slope: the gradient there,
  // whose own change `along` is added; may be absent.
  void back(const Weights& at, Ref cotangent, Ref out, bool accumulate, Ref slope = {}, const Along& along = {}) {
    Instr instr = of_discriminator(Op::spectral_adjoint);
    instr.a0 = cotangent;
    instr.b0 = at.used;
    instr.ref = at.sigma;
    instr.q = uv_;
    if (slope) instr.a1 = slope, instr.b1 = along.w, instr.g = along.sigma;
    instr.out = out;
    instr.accumulate = accumulate;
    graph_.emit(instr);
  }

 private:
  static Instr of_discriminator(Op op) {
    Instr instr;
    instr.op = op;
    instr.player = Player::discriminator;
    return instr;
  }
  Ref per_layer(const std::string& name) {
    return graph_.vector(name, static_cast<int>(graph_.layout.spectral.size()));
  }

  Graph& graph_;
  Ref uv_;
};

}  // namespace pymgan::lowering
