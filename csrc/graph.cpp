#include "graph.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "formulas.h"

namespace pymgan {

Graph::Graph(std::string name, const Layout& l, int moments) : layout(l), moments_(moments) {
  procedure_.name = std::move(name);
}

// ---- values ----

Ref Graph::add_value(Value value) {
  procedure_.values.push_back(std::move(value));
  Ref r;
  r.value = static_cast<int>(procedure_.values.size()) - 1;
  return r;
}

Ref Graph::rows(const std::string& name, int rows, int columns) {
  Value v;
  v.name = name;
  v.rows = rows;
  v.columns = columns;
  v.elements = rows * layout.target.pad(columns);
  return add_value(std::move(v));
}

Ref Graph::vector(const std::string& name, int rows) {
  Value v;
  v.name = name;
  v.shape = Shape::vector;
  v.rows = rows;
  v.columns = 1;
  v.elements = layout.target.pad(rows);
  return add_value(std::move(v));
}

Ref Graph::statistics(const std::string& name) {
  Value v;
  v.name = name;
  v.slot = Slot::statistics;
  v.shape = Shape::vector;
  v.rows = 6;
  v.columns = 1;
  v.elements = layout.target.pad(6);
  v.offset = 0;
  return add_value(std::move(v));
}

Ref Graph::scratch(const std::string& name, int64_t elements) {
  Value v;
  v.name = name;
  v.shape = Shape::vector;
  v.rows = static_cast<int>(elements);
  v.columns = 1;
  v.elements = elements;
  return add_value(std::move(v));
}

Ref Graph::parameters(const std::string& name, Player player) {
  Value v;
  v.name = name;
  v.shape = Shape::parameters;
  v.player = index(player);
  v.elements = layout.size[index(player)];
  return add_value(std::move(v));
}

Ref Graph::parameters(const std::string& name) {
  Value v;
  v.name = name;
  v.shape = Shape::parameters;
  v.elements = layout.total;
  return add_value(std::move(v));
}

Ref Graph::external(Slot slot, const std::string& name, int i) { return external(slot, name, i, 1); }

Ref Graph::moments(Slot slot, const std::string& name, int i) {
  return moments_ > 0 ? external(slot, name, i, moments_) : Ref{};
}

Ref Graph::external(Slot slot, const std::string& name, int i, int vectors) {
  for (size_t at = 0; at < procedure_.values.size(); ++at)
    if (const Value& v = procedure_.values[at]; v.slot == slot && v.index == i) {
      Ref r;
      r.value = static_cast<int>(at);
      return r;
    }
  Value v;
  v.name = name;
  v.slot = slot;
  v.shape = Shape::parameters;
  v.index = i;
  v.elements = vectors * layout.total;
  v.offset = i * v.elements;
  return add_value(std::move(v));
}

Ref Graph::spectral(Slot slot, const std::string& name) {
  const Ref r = scratch(name, layout.spectral_size);
  Value& v = procedure_.values[r.value];
  v.slot = slot;
  if (slot != Slot::temp) v.offset = 0;
  return r;
}

Ref Graph::kept(Ref r) {
  if (keep == Keep::none) return r;
  Value& v = procedure_.values[r.value];
  if (keep == Keep::read) {
    v.slot = Slot::residual;
    if (residuals)
      if (auto at = residuals->find(v.name); at != residuals->end()) v.offset = at->second;
  } else if (auto at = residuals->find(v.name); at != residuals->end()) {
    v.slot = Slot::residual;
    v.offset = at->second;
  }
  return r;
}

Ref Graph::tensor(Ref r, int t) const {
  const Value& v = value(r);
  const Tensor& tensor = layout.tensors[t];
  const int64_t base = v.player < 0 ? layout.start[index(tensor.player)] : 0;
  r.tensor = t;
  r.offset = base + tensor.packed_weight;
  r.bias_offset = tensor.bias < 0 ? -1 : base + tensor.packed_bias;
  return r;
}

// ---- nodes ----

Graph::Key Graph::key(const Node& n) const {
  // A parameter vector that has changed since is another one.
  const auto changed = changes_.find(n.parameters.value);
  const bool leaf = n.kind == Node::Kind::leaf;
  return {static_cast<int64_t>(n.kind),
          leaf ? n.rows : n.x,
          n.y,
          n.parameters.value,
          changed == changes_.end() ? 0 : changed->second,
          n.tensor * 4 + n.adjoint * 2 + n.bias,
          n.map,
          leaf ? n.value.value : n.by.value,
          leaf ? n.value.row : n.by.row,
          static_cast<int64_t>(n.activation),
          std::bit_cast<int64_t>(n.attributes[0]),
          std::bit_cast<int64_t>(n.attributes[1]),
          n.order,
          players};
}

NodeId Graph::record(const std::string& name, Node node, Ref out) {
  const auto id = static_cast<NodeId>(nodes_.size());
  auto [at, fresh] = known_.try_emplace(key(node), id);
  if (!fresh) {
    if (nodes_[at->second].rows >= node.rows) return at->second;  // the other samples are not looked at
    at->second = id;
  }
  node.players = players;
  node.writes = writes_;
  if (node.kind != Node::Kind::leaf) {
    std::string own = name;
    while (!out && !names_.insert(own).second) own += "'";
    node.value = out ? out : rows(own, node.rows, node.columns);
    // What costs little is made again.
    const bool cheap = node.kind == Node::Kind::scale || (node.kind == Node::Kind::map && node.order > 0);
    if (primal && !cheap && !out) kept(node.value);
    items_.emplace_back(id);
  }
  nodes_.push_back(std::move(node));
  return id;
}

NodeId Graph::leaf(Ref value, int rows, int columns) {
  Node n;
  n.value = value;
  n.rows = rows;
  n.columns = columns;
  return record("", n);
}

NodeId Graph::affine(const std::string& name, Ref parameters, int tensor, NodeId x, bool adjoint, bool bias, int rows,
                     Ref out) {
  if (x == kZero || rows == 0) return kZero;
  const Tensor& t = layout.tensors[tensor];
  Node n;
  n.kind = Node::Kind::affine;
  n.x = x;
  n.rows = std::min(rows, node(x).rows);
  n.columns = adjoint ? t.in : t.out;
  n.parameters = parameters;
  n.tensor = tensor;
  n.adjoint = adjoint;
  n.bias = bias && !adjoint && t.bias >= 0;
  return record(name, n, out);
}

NodeId Graph::fixed(const std::string& name, NodeId x, int map, bool adjoint, int rows, Ref out) {
  if (x == kZero || rows == 0) return kZero;
  Node n;
  n.kind = Node::Kind::fixed;
  n.x = x;
  n.map = map;
  n.adjoint = adjoint;
  n.rows = std::min(rows, node(x).rows);
  n.columns = adjoint ? layout.maps[map].forward.in : layout.maps[map].forward.out;
  return record(name, n, out);
}

NodeId Graph::softmax(const std::string& name, NodeId x, int groups, Ref out) {
  Node n;
  n.kind = Node::Kind::softmax;
  n.x = x;
  n.map = groups;
  n.rows = node(x).rows;
  n.columns = node(x).columns;
  return record(name, n, out);
}

NodeId Graph::activate(const std::string& name, NodeId x, Activation activation,
                       const std::array<double, 2>& attributes, Ref out) {
  Node n;
  n.kind = Node::Kind::map;
  n.x = x;
  n.rows = node(x).rows;
  n.columns = node(x).columns;
  n.activation = activation;
  n.attributes = attributes;
  return record(name, n, out);
}

NodeId Graph::derivative(NodeId map) {
  Node n = node(map);
  if (n.order > 0 && !curved(n.activation)) return kZero;
  if (n.order == 0) n.ref = from_output(n.activation, n.attributes) ? map : n.x;
  n.order += 1;
  return record(name(map) + "'", n);
}

NodeId Graph::multiply(const std::string& name, NodeId x, NodeId y, int rows, Ref out) {
  if (x == kZero || y == kZero || rows == 0) return kZero;
  auto rank = [&](NodeId i) { return std::pair(node(i).kind == Node::Kind::map && node(i).order > 0 ? 0 : 1, i); };
  if (rank(y) < rank(x)) std::swap(x, y);
  Node n;
  n.kind = Node::Kind::multiply;
  n.x = x;
  n.y = y;
  n.rows = std::min({rows, node(x).rows, node(y).rows});
  n.columns = node(x).columns;
  return record(name, n, out);
}

NodeId Graph::add(const std::string& name, NodeId x, NodeId y, Ref out) {
  if (x == kZero) return y;
  if (y == kZero) return x;
  Node n;
  n.kind = Node::Kind::add;
  n.x = x;
  n.y = y;
  n.rows = std::max(node(x).rows, node(y).rows);
  n.columns = node(x).columns;
  return record(name, n, out);
}

NodeId Graph::scale(const std::string& name, NodeId x, Ref by, int rows) {
  if (rows == 0) return kZero;
  if (x == kZero || !by) return x;
  Node n;
  n.kind = Node::Kind::scale;
  n.x = x;
  n.by = by;
  n.rows = std::min(rows, node(x).rows);
  n.columns = node(x).columns;
  return record(name, n);
}

NodeId Graph::augment(const std::string& name, NodeId x, Ref numbers, bool adjoint, bool brightness, int rows) {
  if (x == kZero || rows == 0) return kZero;
  Node n;
  n.kind = Node::Kind::augment;
  n.x = x;
  n.by = numbers;
  n.adjoint = adjoint;
  n.bias = brightness;
  n.rows = std::min(rows, node(x).rows);
  n.columns = node(x).columns;
  return record(name, n);
}

void Graph::dot(NodeId x, NodeId y, Ref out) {
  if (x != kZero) dots_[y] = {x, out};
}

void Graph::emit(Instr instr) {
  bool writes = false, all_kept = true;
  visit_operands(instr, [&](const Ref& r, bool written) {
    if (!written || &r == &instr.scratch) return;
    writes = true;
    all_kept &= value(r).slot == Slot::residual;
    if (value(r).shape == Shape::parameters) ++changes_[r.value], ++writes_;
  });
  if (primal && keep == Keep::read && writes && all_kept) return;
  instr.players = players;
  items_.emplace_back(std::move(instr));
}

}  // namespace pymgan
