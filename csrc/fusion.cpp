// From nodes to instructions: a product takes up to two affine nodes, the factor between them and the activation or
// chain rule behind them; whatever a node in the middle is needed for elsewhere leaves by the side (`pre`, `dot`).
#include <algorithm>
#include <utility>

#include "graph.h"

namespace pymgan {

// Works backwards, so that a node knows whether anyone after it wants its value before the node that could swallow it
// decides.
class Fusion {
 public:
  explicit Fusion(Graph& graph)
      : g(graph), values(g.procedure_.values), uses(g.nodes_.size()), seen(g.nodes_.size()), inside(g.nodes_.size()) {
    producer.assign(values.size(), kZero);
    for (const Graph::Item& item : g.items_)
      if (const NodeId* n = std::get_if<NodeId>(&item)) producer[g.ref(*n).value] = *n;
  }

  std::vector<Instr> run() {
    find_uses();
    wanted = outside();
    for (auto item = g.items_.rbegin(); item != g.items_.rend(); ++item) {
      if (const NodeId* n = std::get_if<NodeId>(&*item)) {
        if (!inside[*n] && !read_back(*n) && (wanted[g.ref(*n).value] || dot_of(*n))) emit(*n);
        continue;
      }
      Instr instr = std::get<Instr>(*item);
      if (!prune(instr, needed)) continue;
      visit_operands(instr, [&](const Ref& r, bool) { want(r); });
      code.push_back(std::move(instr));
    }
    std::reverse(code.begin(), code.end());
    return std::move(code);
  }

 private:
  // ---- who needs what ----

  // Values that outlive the procedure.
  std::vector<bool> outside() const {
    std::vector<bool> is(values.size());
    for (size_t i = 0; i < values.size(); ++i)
      is[i] = values[i].slot != Slot::temp && !(values[i].slot == Slot::residual && g.keep == Graph::Keep::read);
    return is;
  }
  bool read_back(NodeId n) const { return g.keep == Graph::Keep::read && g.value(g.ref(n)).slot == Slot::residual; }

  // Drops outputs that nobody needs; false: nothing is left.
  static bool prune(Instr& instr, const std::vector<bool>& needed) {
    bool effect = instr.op == Op::output || instr.op == Op::check;
    visit_operands(instr, [&](const Ref& r, bool written) { effect |= written && needed[r.value]; });
    for (Ref* r : {&instr.c_g, &instr.c_d, &instr.cc_g, &instr.cc_d, &instr.stats})
      if (*r && !needed[r->value]) *r = Ref{};
    return effect;
  }

  // What the node with that derivative is evaluated from stands for it.
  NodeId behind(NodeId n) const { return g.node(n).kind == Node::Kind::map && g.node(n).order > 0 ? g.node(n).ref : n; }

  void find_uses() {
    needed = outside();
    auto use = [&](NodeId n) {
      n = behind(n);
      ++uses[n];
      needed[g.ref(n).value] = true;
    };
    for (auto item = g.items_.rbegin(); item != g.items_.rend(); ++item) {
      if (const NodeId* id = std::get_if<NodeId>(&*item)) {
        const Node& n = g.node(*id);
        const Graph::Dot* dot = dot_of(*id);
        if ((!needed[n.value.value] && !dot) || read_back(*id) || behind(*id) != *id) continue;
        if (dot) use(dot->x);
        if (n.x != kZero) use(n.x);
        if (n.y != kZero) use(n.y);
        for (const Ref& r : {n.parameters, n.by})
          if (r) needed[r.value] = true;
        continue;
      }
      Instr instr = std::get<Instr>(*item);
      if (!prune(instr, needed)) continue;
      visit_operands(instr, [&](const Ref& r, bool) {
        needed[r.value] = true;
        if (producer[r.value] != kZero) ++uses[producer[r.value]];
      });
    }
  }

  const Graph::Dot* dot_of(NodeId n) const {
    const auto dot = g.dots_.find(n);
    return dot != g.dots_.end() && needed[dot->second.out.value] ? &dot->second : nullptr;
  }

  // ---- operands ----

  void want(const Ref& r) {
    wanted[r.value] = true;
    if (producer[r.value] != kZero) ++seen[producer[r.value]];
  }
  // The node's value, which is to be in memory.
  Ref take(NodeId n) {
    wanted[g.ref(n).value] = true;
    ++seen[behind(n)];
    return g.ref(n);
  }
  void swallow(NodeId n) {
    inside[n] = true;
    ++seen[n];
  }
  // And nothing that it reads is written in between.
  bool computed(NodeId n) const {
    return g.node(n).kind != Node::Kind::leaf && !read_back(n) && behind(n) == n && g.node(n).writes == writes;
  }
  // Everyone else who reads it comes later, and finds its value beside that of the node that swallows it.
  bool first_reader(NodeId n) const { return computed(n) && seen[n] + 1 == uses[n]; }
  bool only_reader(NodeId n) const { return computed(n) && uses[n] == 1 && !wanted[g.ref(n).value]; }

  // ---- accumulators ----

  // W x, or s W x, as one term of a product.
  struct Term {
    NodeId affine = kZero, scale = kZero;
    explicit operator bool() const { return affine != kZero; }
  };
  Term term(NodeId n) const {
    if (!only_reader(n)) return {};
    if (g.node(n).kind == Node::Kind::affine) return {n, kZero};
    const NodeId x = g.node(n).x;
    if (g.node(n).kind == Node::Kind::scale && only_reader(x) && g.node(x).kind == Node::Kind::affine) return {x, n};
    return {};
  }
  // Bias, factor and dot are of the first term.
  bool leads(const Term& t) const { return t.scale != kZero || g.node(t.affine).bias || dot_of(t.affine); }
  bool together(const Term& a, const Term& b) const {
    const Node &m = g.node(a.affine), &n = g.node(b.affine);
    return m.tensor == n.tensor && m.adjoint == n.adjoint && !(leads(a) && leads(b));
  }

  void lead(Instr& i, NodeId affine) {
    const Node& n = g.node(affine);
    const Tensor& t = g.layout.tensors[n.tensor];
    i.op = t.diagonal() ? Op::diagonal : Op::product;
    i.adjoint = n.adjoint;
    i.depth = n.adjoint ? t.n : t.k;
    i.window = t.window;
    i.rows0 = n.rows;
    i.a0 = take(n.x);
    i.b0 = g.tensor(n.parameters, n.tensor);
    if (n.bias) i.bias = i.b0;
    if (const Graph::Dot* dot = dot_of(affine)) i.dot = take(dot->x), i.dot_out = dot->out;
  }

  // x y, which an elementwise instruction multiplies on its way; or s x, or s x y.
  bool is_product(NodeId n) const {
    return only_reader(n) && g.node(n).kind == Node::Kind::multiply && behind(g.node(n).x) == g.node(n).x;
  }
  bool is_factors(NodeId n) const { return is_product(n) || (only_reader(n) && g.node(n).kind == Node::Kind::scale); }
  void multiply(Instr& i, NodeId n) {
    if (!is_product(n)) {
      i.a0 = take(n);
      return;
    }
    swallow(n);
    i.a0 = take(g.node(n).x);
    i.b0 = take(g.node(n).y);
  }

  // Makes the node's value what the instruction accumulates.
  void accumulate(Instr& i, NodeId id) {
    const Node& n = g.node(id);
    i.rows0 = n.rows;
    switch (n.kind) {
      case Node::Kind::affine:
        lead(i, id);
        return;
      case Node::Kind::scale:
        i.scale = n.by;
        if (only_reader(n.x) && g.node(n.x).kind == Node::Kind::affine) {
          swallow(n.x);
          lead(i, n.x);
        } else {
          i.op = Op::elementwise;
          multiply(i, n.x);
        }
        return;
      case Node::Kind::add: {
        Term first = term(n.x), second = term(n.y);
        if (first && second && together(first, second)) {
          if (leads(second)) std::swap(first, second);
          for (NodeId in : {first.affine, first.scale, second.affine})
            if (in != kZero) swallow(in);
          lead(i, first.affine);
          if (first.scale != kZero) i.scale = g.node(first.scale).by;
          const Node& m = g.node(second.affine);
          i.rows1 = m.rows;
          i.a1 = take(m.x);
          i.b1 = g.tensor(m.parameters, m.tensor);
          return;
        }
        i.op = Op::elementwise;
        const bool turned = is_factors(n.y) && !is_factors(n.x);
        const NodeId one = turned ? n.y : n.x, two = turned ? n.x : n.y;
        i.rows0 = g.node(one).rows;
        i.rows1 = g.node(two).rows;
        if (only_reader(one) && g.node(one).kind == Node::Kind::scale) {
          swallow(one);
          i.scale = g.node(one).by;
          multiply(i, g.node(one).x);
        } else {
          multiply(i, one);
        }
        i.a1 = take(two);
        return;
      }
      case Node::Kind::multiply:
        i.op = Op::elementwise;
        i.a0 = take(n.x);
        i.b0 = take(n.y);
        return;
      case Node::Kind::fixed:
      case Node::Kind::softmax:
        i.op = n.kind == Node::Kind::fixed ? Op::fixed : Op::softmax;
        i.map = n.map;
        i.adjoint = n.adjoint;
        i.a0 = take(n.x);
        return;
      case Node::Kind::augment:
        i.op = Op::augment;
        i.adjoint = n.adjoint;
        i.a0 = take(n.x);
        i.b0 = n.by;
        if (n.bias) i.bias = n.by;
        return;
      case Node::Kind::map:
      case Node::Kind::leaf:
        i.op = Op::elementwise;
        i.a0 = take(id);
        return;
    }
  }

  // Before an activation or a chain rule.
  void accumulate_before(Instr& i, NodeId x, int rows) {
    const Node& n = g.node(x);
    const bool own = n.kind == Node::Kind::map || n.kind == Node::Kind::fixed || n.kind == Node::Kind::softmax ||
                     n.kind == Node::Kind::augment || (n.kind == Node::Kind::multiply && behind(n.x) != n.x);
    if (first_reader(x) && n.rows == rows && !own) {
      swallow(x);
      accumulate(i, x);
      if (wanted[g.ref(x).value]) i.pre = g.ref(x);
      return;
    }
    i.op = Op::elementwise;
    i.rows0 = rows;
    i.a0 = take(x);
  }

  void chain(Instr& i, Apply apply, NodeId derivative) {
    const Node& d = g.node(derivative);
    i.apply = apply;
    i.activation = d.activation;
    i.attributes = d.attributes;
    i.ref = take(d.ref);
  }

  bool is_derivative(NodeId n, int order) const {
    return g.node(n).kind == Node::Kind::map && g.node(n).order == order;
  }

  // Derivatives of one function at one place; several functions may have the same argument.
  bool same_map(NodeId one, NodeId two) const {
    const Node &m = g.node(one), &n = g.node(two);
    return m.x == n.x && m.activation == n.activation && m.attributes == n.attributes;
  }

  // f'(a) x + f''(a) q g, in either order.
  bool chain_of_two(Instr& i, const Node& n) {
    for (auto [one, two] : {std::pair{n.x, n.y}, std::pair{n.y, n.x}}) {
      const Node &p = g.node(one), &s = g.node(two);
      if (p.kind != Node::Kind::multiply || s.kind != Node::Kind::multiply || p.rows != n.rows || s.rows != n.rows)
        continue;
      if (!is_derivative(p.x, 1) || !is_derivative(s.x, 2) || !same_map(p.x, s.x)) continue;
      const Node& bend = g.node(s.y);
      if (bend.kind != Node::Kind::multiply || !only_reader(one) || !only_reader(two) || !only_reader(s.y)) continue;
      for (NodeId in : {one, two, s.y}) swallow(in);
      chain(i, Apply::chain2, p.x);
      take(g.node(s.x).ref);
      i.q = take(bend.x);
      i.g = take(bend.y);
      accumulate_before(i, p.y, n.rows);
      return true;
    }
    return false;
  }

  // ---- one node ----

  void emit(NodeId id) {
    const Node& n = g.node(id);
    writes = n.writes;
    Instr i;
    i.players = n.players;
    i.columns = n.columns;
    if (n.kind == Node::Kind::map && n.order == 0) {
      i.apply = Apply::act;
      i.activation = n.activation;
      i.attributes = n.attributes;
      accumulate_before(i, n.x, n.rows);
    } else if (n.kind == Node::Kind::map) {
      i.op = Op::elementwise;
      i.apply = Apply::act;
      i.activation = n.activation;
      i.attributes = n.attributes;
      i.order = n.order;
      i.rows0 = n.rows;
      i.a0 = g.ref(n.ref);
      wanted[i.a0.value] = true;
    } else if (n.kind == Node::Kind::multiply && is_derivative(n.x, 1)) {
      chain(i, Apply::chain, n.x);
      accumulate_before(i, n.y, n.rows);
    } else if (n.kind != Node::Kind::add || !chain_of_two(i, n)) {
      accumulate(i, id);
    }
    if (wanted[n.value.value]) i.out = n.value;
    split(i, n.rows);
  }

  // The samples that have both terms, then those that have one.
  void split(const Instr& i, int rows) {
    const int both = std::min(i.rows0, i.rows1);
    std::vector<Instr> parts;
    for (auto [first, end] : {std::pair{0, i.a1 ? both : rows}, std::pair{i.a1 ? both : rows, rows}}) {
      if (first == end) continue;
      Instr part = i;
      part.rows = end - first;
      part.rows0 = part.rows1 = 0;
      for (Ref* r : {&part.a0, &part.a1, &part.ref, &part.q, &part.g, &part.out, &part.pre, &part.dot, &part.dot_out,
                     &part.scale})
        if (*r) *r = later(*r, first);
      if (i.op == Op::elementwise && part.b0) part.b0 = later(part.b0, first);
      if (i.a1 && first >= i.rows1) part.a1 = part.b1 = Ref{};
      if (i.a1 && first >= i.rows0) {
        part.scale = part.bias = part.dot = part.dot_out = Ref{};
        part.a0 = std::exchange(part.a1, Ref{}), part.b0 = std::exchange(part.b1, Ref{});
      }
      parts.push_back(std::move(part));
    }
    code.insert(code.end(), parts.rbegin(), parts.rend());
  }
  Ref later(Ref r, int first) const {
    const Value& v = g.value(r);
    if (v.shape == Shape::rows) return from_row(r, first, g.layout, v.columns);
    r.row += first;
    r.offset += first;
    return r;
  }

  Graph& g;
  const std::vector<Value>& values;
  std::vector<NodeId> producer;      // of a value; kZero: an instruction
  std::vector<int> uses, seen;       // of a node: all, and those later in the program
  std::vector<bool> inside;          // of a node: part of another one's instruction
  std::vector<bool> needed, wanted;  // of a value: by anyone at all, and in memory by whoever comes later
  int writes = 0;                    // before the node at hand
  std::vector<Instr> code;           // backwards
};

void Graph::fuse() { procedure_.code = Fusion(*this).run(); }

}  // namespace pymgan
