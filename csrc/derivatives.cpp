#include "derivatives.h"

#include <algorithm>
#include <iterator>

namespace pymgan {
namespace {

// Remembers which nodes are asked for, made or found.
class Recorder {
 public:
  Recorder(Graph& g, Tape& tape) : g(g), tape(tape) {}
  NodeId operator()(NodeId n) {
    if (n != kZero && g.node(n).kind != Node::Kind::leaf) tape.push_back(n);
    return n;
  }
  ~Recorder() {
    std::sort(tape.begin(), tape.end());
    tape.erase(std::unique(tape.begin(), tape.end()), tape.end());
  }

 private:
  Graph& g;
  Tape& tape;
};

}  // namespace

NodeId at(const Jets& jets, NodeId node) {
  const auto found = jets.find(node);
  return found == jets.end() ? kZero : found->second;
}

Tape joined(const Tape& a, const Tape& b) {
  Tape both;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

Pass forward(Graph& g, Player player, const std::string& name, Ref parameters, NodeId input, Ref out) {
  Pass pass{player, name, parameters, input, input, {}, {}};
  Recorder record(g, pass.tape);
  const auto& stages = g.layout.stages[index(player)];
  std::vector<NodeId> outputs;
  auto output_of = [&](int stage) { return stage < 0 ? input : outputs[stage]; };
  for (int i = 0; i < static_cast<int>(stages.size()); ++i) {
    const Stage& s = stages[i];
    const bool active = s.activation != Activation::identity;
    const Ref to = i + 1 == static_cast<int>(stages.size()) ? out : Ref{};
    const std::string result = name + ".h" + std::to_string(i + 1), part = name + ".a" + std::to_string(i);
    NodeId x = output_of(s.input);
    auto affine = [&](NodeId of, bool whole) {
      return record(
          g.affine(whole ? result : part, parameters, s.tensor, of, false, true, g.node(of).rows, whole ? to : Ref{}));
    };
    auto fixed = [&](const std::string& what, NodeId of, int map) { return record(g.fixed(what, of, map)); };
    switch (s.kind) {
      case Stage::Kind::product:
        if (s.tensor >= 0) x = affine(x, !active);
        if (active) x = record(g.activate(result, x, s.activation, s.attributes, to));
        break;
      case Stage::Kind::prelu: {
        const NodeId positive = record(g.activate(part + "+", x, Activation::relu, {}));
        const NodeId negative = record(g.activate(part + "-", x, Activation::negative_part, {}));
        x = record(g.add(result, positive, affine(negative, false), to));
        break;
      }
      case Stage::Kind::normalise: {
        const Groups& groups = g.layout.groups[s.map];
        const NodeId mean = fixed(part + ".mean", x, groups.mean);
        const NodeId centred = record(g.add(part + ".centred", x, fixed(part + ".-mean", mean, groups.less)));
        const NodeId square = record(g.multiply(part + ".square", centred, centred));
        const NodeId variance = fixed(part + ".variance", square, groups.mean);
        const NodeId inverse = record(g.activate(part + ".inverse", variance, Activation::inverse_root, s.attributes));
        x = record(g.multiply(result, centred, fixed(part + ".scale", inverse, groups.spread), kAll, to));
        break;
      }
      case Stage::Kind::softmax:
        x = record(g.softmax(result, x, s.map, to));
        break;
      case Stage::Kind::fixed:
        x = record(g.fixed(result, x, s.map, false, kAll, to));
        break;
      case Stage::Kind::add:
        x = record(g.add(result, x, output_of(s.other), to));
        break;
    }
    outputs.push_back(x);
  }
  pass.output = outputs.back();
  return pass;
}

namespace {

// J d of a softmax p, and J^T d, which is the same: p d - p sum(p d) over each group.
NodeId softmax_derivative(Graph& g, NodeId softmax, NodeId d, const std::string& name, int rows, Recorder& record) {
  const Groups& groups = g.layout.groups[g.node(softmax).map];
  const NodeId q = record(g.multiply(name, softmax, d, rows));
  const NodeId sum = record(g.fixed(name, q, groups.spread, true));
  const NodeId less = record(g.fixed(name, sum, groups.less));
  return record(g.add(name, q, record(g.multiply(name, softmax, less))));
}

}  // namespace

Jets push_forward(Graph& g, const Tape& tape, Jets tangents, const Direction& direction, const std::string& suffix,
                  Tape& made) {
  Recorder record(g, made);
  for (NodeId id : tape) {
    const Node n = g.node(id);
    const std::string name = g.name(id) + "~" + suffix;
    const NodeId dx = at(tangents, n.x), dy = at(tangents, n.y);
    NodeId tangent = kZero;
    switch (n.kind) {
      case Node::Kind::leaf:
        continue;
      case Node::Kind::affine: {
        if (direction.towards && n.parameters.value == direction.of.value) {
          NodeId moved = record(g.affine(name, direction.towards, n.tensor, n.x, n.adjoint, n.bias, n.rows));
          if (direction.slope) g.dot(at(*direction.cotangents, id), moved, direction.slope);
          tangent = record(g.scale(name, moved, direction.factor));
        }
        tangent =
            record(g.add(name, tangent, record(g.affine(name, n.parameters, n.tensor, dx, n.adjoint, false, n.rows))));
        break;
      }
      case Node::Kind::fixed:
        tangent = record(g.fixed(name, dx, n.map, n.adjoint));
        break;
      case Node::Kind::softmax:
        if (dx != kZero) tangent = softmax_derivative(g, id, dx, name, kAll, record);
        break;
      case Node::Kind::map:
        if (dx != kZero) tangent = record(g.multiply(name, record(g.derivative(id)), dx));
        break;
      case Node::Kind::multiply:
        tangent = record(g.add(name, record(g.multiply(name, n.x, dy)), record(g.multiply(name, n.y, dx))));
        break;
      case Node::Kind::add:
        tangent = record(g.add(name, dx, dy));
        break;
      case Node::Kind::scale:
        tangent = record(g.scale(name, dx, n.by));
        break;
      case Node::Kind::augment:
        tangent = record(g.augment(name, dx, n.by, n.adjoint, false));
        break;
    }
    if (tangent != kZero) tangents[id] = tangent;
  }
  return tangents;
}

Jets pull_back(Graph& g, const Tape& tape, const Jets& results, const std::map<NodeId, int>& limits, Ref parameters,
               const std::string& suffix, Tape* made) {
  Tape own;
  Recorder record(g, made ? *made : own);
  Jets cotangents = results;
  auto wanted = [&](NodeId n) {
    const auto limit = limits.find(n);
    return limit == limits.end() ? g.node(n).rows : limit->second;
  };
  for (auto it = tape.rbegin(); it != tape.rend(); ++it) {
    const Node n = g.node(*it);
    const NodeId cotangent = at(cotangents, *it);
    if (cotangent == kZero) continue;
    // A leaf may be read by several passes; its cotangents are theirs.
    auto name = [&](NodeId to) {
      return (g.node(to).kind == Node::Kind::leaf ? g.name(*it) + ".in" : g.name(to)) + "^" + suffix;
    };
    auto give = [&](NodeId to, NodeId part) {
      if (part == kZero) return;
      NodeId& sum = cotangents.try_emplace(to, kZero).first->second;
      sum = record(g.add(name(to), sum, record(part)));
    };
    switch (n.kind) {
      case Node::Kind::leaf:
        break;
      case Node::Kind::affine: {
        const int rows = wanted(n.x);
        // One product for all samples, whatever their factors.
        const Node& c = g.node(cotangent);
        if (c.kind == Node::Kind::scale && n.parameters.value != parameters.value) {
          const NodeId part = g.affine(name(n.x), n.parameters, n.tensor, c.x, !n.adjoint, false, rows);
          record(part);
          give(n.x, g.scale(name(n.x), part, c.by));
        } else {
          give(n.x, g.affine(name(n.x), n.parameters, n.tensor, cotangent, !n.adjoint, false, rows));
        }
        break;
      }
      case Node::Kind::fixed:
        give(n.x, g.fixed(name(n.x), cotangent, n.map, !n.adjoint, wanted(n.x)));
        break;
      case Node::Kind::softmax:
        if (wanted(n.x) > 0) give(n.x, softmax_derivative(g, *it, cotangent, name(n.x), wanted(n.x), record));
        break;
      case Node::Kind::map:
        give(n.x, g.multiply(name(n.x), record(g.derivative(*it)), cotangent, wanted(n.x)));
        break;
      case Node::Kind::multiply:
        give(n.x, g.multiply(name(n.x), n.y, cotangent, wanted(n.x)));
        give(n.y, g.multiply(name(n.y), n.x, cotangent, wanted(n.y)));
        break;
      case Node::Kind::add:
        for (NodeId to : {n.x, n.y})
          if (wanted(to) > 0) give(to, cotangent);
        break;
      case Node::Kind::scale:
        give(n.x, g.scale(name(n.x), cotangent, n.by, wanted(n.x)));
        break;
      case Node::Kind::augment:
        give(n.x, g.augment(name(n.x), cotangent, n.by, !n.adjoint, false, wanted(n.x)));
        break;
    }
  }
  return cotangents;
}

std::vector<Contribution> contributions(const Graph& g, const Tape& tape, const Jets& cotangents, Ref parameters) {
  std::vector<Contribution> all;
  for (NodeId id : tape) {
    const Node& n = g.node(id);
    const NodeId cotangent = at(cotangents, id);
    if (n.kind != Node::Kind::affine || n.parameters.value != parameters.value || cotangent == kZero) continue;
    if (n.adjoint)
      all.push_back({n.tensor, n.x, cotangent, false});
    else
      all.push_back({n.tensor, cotangent, n.x, n.bias});
  }
  return all;
}

std::vector<Contribution> scaled(Graph& g, std::vector<Contribution> all, Ref factor, int rows,
                                 const std::string& suffix) {
  for (Contribution& c : all) {
    c.outputs = g.scale(g.name(c.outputs) + suffix, c.outputs, factor, rows);
  }
  return all;
}

void write_gradient(Graph& g, const std::vector<Contribution>& all, Ref out, bool accumulate, Ref theta) {
  std::map<int, std::vector<Contribution>> of_tensor;
  for (const Contribution& c : all) of_tensor[c.tensor].push_back(c);
  for (auto& [tensor, terms] : of_tensor) {
    const Tensor& t = g.layout.tensors[tensor];
    // An instruction takes two terms, and the bias from its first.
    std::stable_partition(terms.begin(), terms.end(), [](const Contribution& c) { return c.bias; });
    bool more = accumulate;
    for (size_t i = 0; i < terms.size();) {
      const bool pair = i + 1 < terms.size() && !terms[i + 1].bias;
      Instr instr;
      instr.op = Op::outer;
      instr.rows = t.out;
      instr.columns = t.in;
      instr.window = t.window;
      auto rows = [&](const Contribution& c) { return std::min(g.node(c.outputs).rows, g.node(c.inputs).rows); };
      instr.rows0 = rows(terms[i]);
      instr.a0 = g.ref(terms[i].inputs);
      instr.b0 = g.ref(terms[i].outputs);
      if (pair) {
        instr.rows1 = rows(terms[i + 1]);
        instr.a1 = g.ref(terms[i + 1].inputs);
        instr.b1 = g.ref(terms[i + 1].outputs);
      }
      instr.out = g.tensor(out, tensor);
      if (!terms[i].bias) instr.out.bias_offset = -1;
      instr.accumulate = more;
      // Of a diagonal: sums over rows, then over the elements of a number, in double.
      const bool packed = g.layout.target.packed;
      int64_t scratch = t.diagonal() && packed ? g.layout.target.pad(t.in) + 2 * g.layout.target.pad(t.n) : 0;
      if (theta) {
        const int64_t weight = t.by_rows || t.diagonal() ? g.layout.packed_weight_size(t) : 0;
        const int64_t bias = t.bias >= 0 ? g.layout.packed_bias_size(t) : 0;
        instr.player = t.player;
        instr.theta = g.tensor(theta, tensor);
        instr.rate_scale = g.tensor(g.external(Slot::rate_scale, "rate_scale"), tensor);
        if (packed) scratch += weight + bias;
      }
      if (scratch > 0) instr.scratch = g.scratch("F" + std::to_string(tensor), scratch);
      g.emit(instr);
      more = true;
      i += pair ? 2 : 1;
    }
  }
}

}  // namespace pymgan
