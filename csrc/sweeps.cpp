#include "sweeps.h"

#include "formulas.h"

namespace pymgan {
namespace {

const std::vector<Stage>& stages_of(const Builder& b, const Sweep& net) { return b.layout.stages[index(net.player)]; }

bool active(const Stage& s) { return s.activation != Activation::identity; }

void set_activation(Instr& instr, const Stage& s, Apply apply) {
  if (!active(s)) return;  // Apply::store
  instr.apply = apply;
  instr.activation = s.activation;
  instr.attributes = s.attributes;
}

// What a product through stage s contracts.
void contract(Builder& b, Instr& instr, const Stage& s) {
  const bool flat = s.window < 0;
  instr.depth = instr.adjoint ? (flat ? s.out : s.to.channels) : (flat ? s.in : s.from.channels);
  b.through_window(instr, s.window);
}

// What f' and f'' of stage i are functions of: its output or its pre-activation.
Ref derivative_ref(const Builder& b, const Sweep& net, int i) {
  const Stage& s = stages_of(b, net)[i];
  if (!active(s)) return {};
  if (from_output(s.activation, s.attributes)) return net.h[i + 1];
  return s.tensor >= 0 ? net.a[i] : net.h[i];
}

std::string label(const std::string& net, const char* what, int i) { return net + "." + what + std::to_string(i); }

// Adds the chain rule through stage i's activation to an instruction whose accumulator is the cotangent of its output.
void chain_back(Builder& b, Instr& instr, Sweep& net, int i) {
  const Stage& s = stages_of(b, net)[i];
  set_activation(instr, s, Apply::chain);
  instr.ref = derivative_ref(b, net, i);
  if (active(s) && curved(s.activation))
    net.g[i] = instr.pre = b.kept(b.rows(label(net.name, "g", i), net.rows, s.out));
  net.delta[i] = instr.out = b.kept(b.rows(label(net.name, "delta", i), net.rows, s.out));
}

}  // namespace

Sweep forward(Builder& b, Player player, const std::string& name, Ref parameters, Ref input, int rows, Ref out) {
  Sweep net{player, name, parameters, rows, {input}, {}, {}, {}, {}};
  const auto& stages = stages_of(b, net);
  const int n = static_cast<int>(stages.size());
  net.a.resize(n);
  net.delta.resize(n);
  net.g.resize(n);
  for (int i = 0; i < n; ++i) {
    const Stage& s = stages[i];
    Instr instr;
    instr.rows = rows;
    instr.columns = s.out;
    if (s.tensor >= 0) {
      instr.op = Op::product;
      contract(b, instr, s);
      instr.a0 = net.h[i];
      instr.b0 = b.tensor(parameters, s.tensor);
      if (instr.b0.bias_offset >= 0) instr.bias = instr.b0;
      if (active(s) && !from_output(s.activation, s.attributes))
        net.a[i] = instr.pre = b.kept(b.rows(label(name, "a", i), rows, s.out));
    } else {
      instr.op = Op::elementwise;
      instr.a0 = net.h[i];
    }
    set_activation(instr, s, Apply::act);
    instr.out = i + 1 == n && out ? out : b.kept(b.rows(label(name, "h", i + 1), rows, s.out));
    net.h.push_back(instr.out);
    b.emit(instr);
  }
  return net;
}

void backward(Builder& b, Sweep& net, Ref seed, Ref scale, int input_rows) {
  const auto& stages = stages_of(b, net);
  const int last = static_cast<int>(stages.size()) - 1;
  if (active(stages[last]) || scale) {
    Instr instr;
    instr.op = Op::elementwise;
    instr.rows = net.rows;
    instr.columns = stages[last].out;
    instr.a0 = seed;
    instr.scale = scale;
    chain_back(b, instr, net, last);
    b.emit(instr);
  } else {
    net.delta[last] = seed;
  }
  for (int i = last; i >= 0; --i) {
    const Stage& s = stages[i];
    if (i == 0 && input_rows == 0) break;
    Instr instr;
    instr.rows = i == 0 ? input_rows : net.rows;
    instr.columns = s.in;
    instr.a0 = net.delta[i];
    if (s.tensor >= 0) {
      instr.op = Op::product;
      instr.adjoint = true;
      contract(b, instr, s);
      instr.b0 = b.tensor_back(net.parameters, s.tensor);
    } else if (i == 0) {
      net.input_cotangent = net.delta[0];
      break;
    } else {
      instr.op = Op::elementwise;
    }
    if (i > 0)
      chain_back(b, instr, net, i - 1);
    else
      net.input_cotangent = instr.out = b.kept(b.rows(net.name + ".dx", input_rows, s.in));
    b.emit(instr);
  }
}

void weight_gradient(Builder& b, const Sweep& net, Ref scale, int rows, Ref out, Ref theta) {
  const auto& stages = stages_of(b, net);
  for (int i = 0; i < static_cast<int>(stages.size()); ++i) {
    const Stage& s = stages[i];
    if (s.tensor < 0) continue;
    Ref delta = net.delta[i];
    if (scale) {
      Instr instr;
      instr.op = Op::elementwise;
      instr.rows = rows;
      instr.columns = s.out;
      instr.a0 = delta;
      instr.scale = scale;
      instr.out = delta = b.rows(label(net.name, "scaled_delta", i), rows, s.out);
      b.emit(instr);
    }
    Instr instr;
    instr.op = Op::outer;
    instr.rows = s.out;
    instr.columns = s.in;
    instr.window = s.window;
    instr.rows0 = rows;
    instr.a0 = net.h[i];
    instr.b0 = delta;
    instr.out = b.tensor(out, s.tensor);
    if (theta) {
      const Tensor& t = b.layout.tensors[s.tensor];
      const int64_t weight = t.by_rows ? b.layout.packed_weight_size(t) : 0;
      const int64_t bias = t.bias >= 0 ? b.layout.packed_bias_size(t) : 0;
      instr.player = net.player;
      instr.theta = b.tensor(theta, s.tensor);
      instr.rate_scale = b.tensor(b.external(Slot::rate_scale, "rate_scale"), s.tensor);
      if (weight + bias > 0) instr.scratch = b.scratch(label(net.name, "F", i), weight + bias);
    }
    b.emit(instr);
  }
}

TangentSweep forward_tangent(Builder& b, const Sweep& net, Ref direction, Ref y0, int y0_rows, Ref scale, Ref dot_out,
                             int rows, const std::string& suffix) {
  const auto& stages = stages_of(b, net);
  TangentSweep tangent;
  tangent.y.push_back(y0);
  tangent.q.resize(stages.size());
  if (!direction && !y0) {
    tangent.y.resize(stages.size() + 1);
    return tangent;
  }
  for (int i = 0; i < static_cast<int>(stages.size()); ++i) {
    const Stage& s = stages[i];
    const Ref y = tangent.y[i];
    const int y_rows = !y ? 0 : i == 0 ? y0_rows : rows;
    Instr instr;
    instr.columns = s.out;
    set_activation(instr, s, Apply::chain);
    instr.ref = derivative_ref(b, net, i);
    if (!y && (!direction || s.tensor < 0)) {  // an activation before the first parameters of the direction
      tangent.y.emplace_back();
      continue;
    }
    Ref out = b.rows(label(net.name, "y", i + 1) + suffix, rows, s.out), pre;
    if (active(s) && curved(s.activation)) tangent.q[i] = pre = b.rows(label(net.name, "q", i) + suffix, rows, s.out);
    // The rows that have an input tangent, then those that have none.
    for (auto [first, count] : {std::pair{0, y_rows}, std::pair{y_rows, rows - y_rows}}) {
      if (count == 0) continue;
      Instr part = instr;
      auto at = [&](Ref r, int columns) { return r ? from_row(r, first, b.layout, columns) : r; };
      part.rows = count;
      part.ref = at(instr.ref, s.out);
      part.out = at(out, s.out);
      part.pre = at(pre, s.out);
      if (s.tensor >= 0) {
        part.op = Op::product;
        contract(b, part, s);
        if (direction) {
          part.a0 = at(net.h[i], s.in);
          part.b0 = b.tensor(direction, s.tensor);
          if (part.b0.bias_offset >= 0) part.bias = part.b0;
          if (scale) part.scale = scale, part.scale.row += first, part.scale.offset += first;
          if (dot_out) {
            part.dot = at(net.delta[i], s.out);
            part.dot_out = from_row(dot_out, first, b.layout, 1);
          }
        }
        if (first < y_rows) {
          part.a1 = y;
          part.b1 = b.tensor(net.parameters, s.tensor);
        }
      } else {
        part.op = Op::elementwise;
        part.a0 = y;
        if (first >= y_rows) {  // an activation of an input without a tangent
          part = Instr{};
          part.op = Op::fill;
          part.rows = count;
          part.columns = s.out;
          part.out = at(out, s.out);
          b.emit(part);
          if (pre) part.out = at(pre, s.out), b.emit(part);
          continue;
        }
      }
      b.emit(part);
    }
    tangent.y.push_back(out);
  }
  return tangent;
}

CotangentTangent backward_tangent(Builder& b, const Sweep& net, const TangentSweep& tangent, Ref direction, Ref seed,
                                  Ref scale, int rows, int input_rows, const std::string& suffix) {
  const auto& stages = stages_of(b, net);
  const int last = static_cast<int>(stages.size()) - 1;
  CotangentTangent cotangent;
  cotangent.d.resize(stages.size());
  auto chain2 = [&](Instr& instr, int i) {
    const Stage& s = stages[i];
    set_activation(instr, s, Apply::chain2);
    instr.ref = derivative_ref(b, net, i);
    if (tangent.q[i]) instr.q = tangent.q[i], instr.g = net.g[i];
    cotangent.d[i] = instr.out = b.rows(label(net.name, "d", i) + suffix, rows, s.out);
  };
  if (active(stages[last])) {
    Instr instr;
    instr.op = Op::elementwise;
    instr.rows = rows;
    instr.columns = stages[last].out;
    instr.a0 = seed;
    chain2(instr, last);
    b.emit(instr);
  } else {
    cotangent.d[last] = seed;
  }
  for (int i = last; i >= 0; --i) {
    const Stage& s = stages[i];
    if (i == 0 && input_rows == 0) break;
    Instr instr;
    instr.rows = i == 0 ? input_rows : rows;
    instr.columns = s.in;
    if (s.tensor >= 0) {
      instr.op = Op::product;
      instr.adjoint = true;
      contract(b, instr, s);
      if (direction) {
        instr.a0 = net.delta[i];
        instr.b0 = b.tensor_back(direction, s.tensor);
        instr.scale = scale;
      }
      instr.a1 = cotangent.d[i];
      instr.b1 = b.tensor_back(net.parameters, s.tensor);
    } else if (i == 0) {
      cotangent.input = cotangent.d[0];
      break;
    } else {
      instr.op = Op::elementwise;
      instr.a0 = cotangent.d[i];
    }
    if (i > 0)
      chain2(instr, i - 1);
    else
      cotangent.input = instr.out = b.rows(net.name + ".ddx" + suffix, input_rows, s.in);
    b.emit(instr);
  }
  return cotangent;
}

void weight_tangent(Builder& b, const Sweep& net, const TangentSweep& tangent, const CotangentTangent& cotangent,
                    int rows, int y0_rows, Ref out) {
  const auto& stages = stages_of(b, net);
  for (int i = 0; i < static_cast<int>(stages.size()); ++i) {
    const Stage& s = stages[i];
    if (s.tensor < 0) continue;
    Instr instr;
    instr.op = Op::outer;
    instr.rows = s.out;
    instr.columns = s.in;
    instr.window = s.window;
    instr.rows0 = rows;
    instr.a0 = net.h[i];
    instr.b0 = cotangent.d[i];
    if (tangent.y[i]) {
      instr.rows1 = i == 0 ? y0_rows : rows;
      instr.a1 = tangent.y[i];
      instr.b1 = net.delta[i];
    }
    instr.out = b.tensor(out, s.tensor);
    instr.accumulate = true;
    b.emit(instr);
  }
}

}  // namespace pymgan
