// Passes over one network, forward and backward, on values and on their directional derivatives (jets of order 0 and
// 1).
//
// With a_l = W_l h_{l-1} + b_l, h_l = f(a_l) and a cotangent g_l of h_l, delta_l = f'(a_l) g_l:
//   forward            h_l                                              1 product a layer
//   backward           g_{l-1} = W_l^T delta_l                           1
//   weight_gradient    dW_l = delta_l^T h_{l-1}                          1
//   forward_tangent    q_l = s (U_l h_{l-1} + u_l) + W_l y_{l-1},   y_l = f'(a_l) q_l                          2
//   backward_tangent   d_l = f'(a_l) (s U_{l+1}^T delta_{l+1} + W_{l+1}^T d_{l+1}) + f''(a_l) q_l g_l          2
//   weight_tangent     dW_l += d_l^T h_{l-1} + delta_l^T y_{l-1}                                               2
// (U, u) is the direction in the parameters and s a factor per sample, see game.cpp. An absent Ref is an identically
// zero value: its products are never emitted.
#pragma once

#include <string>
#include <vector>

#include "builder.h"

namespace pymgan {

// One network on one batch: what the primal passes leave behind.
struct Sweep {
  Player player;
  std::string name;
  Ref parameters;
  int rows = 0;
  std::vector<Ref> h;      // [stages + 1]: h[0] is the input
  std::vector<Ref> a;      // [stages]: pre-activations, where f' needs them
  std::vector<Ref> delta;  // [stages]: cotangents of the pre-activations
  std::vector<Ref> g;      // [stages]: cotangents of the outputs, where f'' is not zero
  Ref input_cotangent;
};

struct TangentSweep {
  std::vector<Ref> y;  // [stages + 1]; absent: zero
  std::vector<Ref> q;  // [stages], where f'' is not zero
};

struct CotangentTangent {
  std::vector<Ref> d;  // [stages]: of the pre-activations
  Ref input;
};

// `out` (optional) receives the last stage's output.
Sweep forward(Builder& b, Player player, const std::string& name, Ref parameters, Ref input, int rows, Ref out = {});

// seed [rows][out] times scale [rows] (absent: 1) is the cotangent of the output. The input's is wanted for the first
// `input_rows` samples.
void backward(Builder& b, Sweep& net, Ref seed, Ref scale, int input_rows);

// delta is scaled by `scale` [rows] (absent: 1) first. Writes the player's whole gradient F to `out`, or, with `theta`,
// theta - rate scale F.
void weight_gradient(Builder& b, const Sweep& net, Ref scale, int rows, Ref out, Ref theta = {});

// Of the first `rows` samples. y0 (absent: zero) is the input's tangent, for the first y0_rows samples.
// rowsum(dot_out [rows][1]) += d score along the direction.
TangentSweep forward_tangent(Builder& b, const Sweep& net, Ref direction, Ref y0, int y0_rows, Ref scale, Ref dot_out,
                             int rows, const std::string& suffix);

CotangentTangent backward_tangent(Builder& b, const Sweep& net, const TangentSweep& tangent, Ref direction, Ref seed,
                                  Ref scale, int rows, int input_rows, const std::string& suffix);

void weight_tangent(Builder& b, const Sweep& net, const TangentSweep& tangent, const CotangentTangent& cotangent,
                    int rows, int y0_rows, Ref out);

}  // namespace pymgan
