// Writes a Procedure. What is to be computed is recorded as a graph of small nodes, each a formula over the samples of
// one batch; derivatives.h differentiates such graphs. finish() drops what nobody reads, fuses nodes into instructions
// (fusion.cpp), lays the arena out by liveness and counts FLOPs and bytes (placement.cpp).
#pragma once

#include <array>
#include <deque>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "program.h"

namespace pymgan {

using NodeId = int;
inline constexpr int kAll = std::numeric_limits<int>::max();  // samples
inline constexpr NodeId kZero = -1;  // identically zero: never computed, and neither is what it multiplies

// A value [rows][columns] of the first `rows` samples. Samples do not interact: row m of a node reads row m of others.
struct Node {
  enum class Kind : uint8_t {
    leaf,      // written by an instruction outside of the graph
    affine,    // W x + b, or W^T x, with one tensor of a parameter vector; or w x + b, element by element
    fixed,     // A x, or A^T x, with one of the layout's maps
    softmax,   // of x over groups
    map,       // f^(order)(x), an activation or a derivative of one
    multiply,  // x y, element by element
    add,       // x + y
    scale,     // s x, with s [rows] a number a sample
    augment,   // A x, or A^T x, with A as numbers a sample say (augmentation.h)
  };
  Kind kind = Kind::leaf;
  int rows = 0, columns = 0;
  Ref value;
  NodeId x = kZero, y = kZero;

  Ref parameters;  // affine; of the whole vector
  int tensor = -1;
  bool adjoint = false, bias = false;  // and of augment: A^T; brightness is added
  int map = -1;                        // fixed, softmax

  Activation activation = Activation::identity;  // map
  std::array<double, 2> attributes{};
  int order = 0;
  NodeId ref = kZero;  // what a derivative is evaluated from: the activation's output or its input, see formulas.h

  Ref by;  // scale, augment

  uint8_t players = kBoth;
  int writes = 0;  // to parameter vectors before it was recorded
};

class Graph {
 public:
  // moments: of the optimisers
  Graph(std::string name, const Layout& layout, int moments = 0);

  const Layout& layout;
  uint8_t players = kBoth;  // tag of the instructions that follow

  // How values named by kept() are stored: everything in the arena; the ones in `residuals` kept; or read back from
  // there.
  enum class Keep { none, write, read };
  Keep keep = Keep::none;
  const std::map<std::string, int64_t>* residuals = nullptr;
  bool primal = false;  // what is recorded belongs to the step itself: what it has kept is not made again

  // ---- values ----
  Ref rows(const std::string& name, int rows, int columns);
  Ref vector(const std::string& name, int rows);
  Ref statistics(const std::string& name);                          // of a head, for the trace
  Ref scratch(const std::string& name, int64_t elements);           // in the arena
  Ref parameters(const std::string& name, Player player);           // in the arena
  Ref parameters(const std::string& name);                          // likewise, of both players
  Ref external(Slot slot, const std::string& name, int index = 0);  // of both players
  Ref moments(Slot slot, const std::string& name, int index = 0);   // of both players, all that the optimisers have
  Ref spectral(Slot slot, const std::string& name);                 // (u, v) of D's spectral norms; temp: in the arena
  // A residual of the forward pass: a temp, or a slot in the residual block (see Keep).
  Ref kept(Ref value);
  Ref tensor(Ref parameters, int tensor) const;  // one tensor of a parameter-shaped value
  const Value& value(Ref r) const { return procedure_.values[r.value]; }

  // ---- nodes; what has been made for as many samples is found, not made again ----
  NodeId leaf(Ref value, int rows, int columns);
  // `name` of a node is its value's; `rows`: how many are wanted of those that the arguments cover.
  NodeId affine(const std::string& name, Ref parameters, int tensor, NodeId x, bool adjoint, bool bias, int rows,
                Ref out = {});
  NodeId fixed(const std::string& name, NodeId x, int map, bool adjoint = false, int rows = kAll, Ref out = {});
  NodeId softmax(const std::string& name, NodeId x, int groups, Ref out = {});
  NodeId activate(const std::string& name, NodeId x, Activation activation, const std::array<double, 2>& attributes,
                  Ref out = {});
  NodeId derivative(NodeId map);  // the next derivative of a map, at the same place; may be kZero
  NodeId multiply(const std::string& name, NodeId x, NodeId y, int rows = kAll, Ref out = {});
  NodeId add(const std::string& name, NodeId x, NodeId y, Ref out = {});
  NodeId scale(const std::string& name, NodeId x, Ref by, int rows = kAll);
  NodeId augment(const std::string& name, NodeId x, Ref numbers, bool adjoint, bool brightness, int rows = kAll);
  const Node& node(NodeId n) const { return nodes_[n]; }
  Ref ref(NodeId n) const { return nodes_[n].value; }
  const std::string& name(NodeId n) const { return value(ref(n)).name; }
  // rowsum(out [rows][1]) += rowsum(x y) with y an affine node.
  void dot(NodeId x, NodeId y, Ref out);

  void emit(Instr instr);

  Procedure finish();
  std::set<std::string> residuals_read() const;  // names, after finish()

 private:
  using Item = std::variant<NodeId, Instr>;
  using Key = std::array<int64_t, 14>;
  struct Dot {
    NodeId x;
    Ref out;
  };

  Ref add_value(Value value);
  Ref external(Slot slot, const std::string& name, int index, int vectors);
  NodeId record(const std::string& name, Node node, Ref out = {});
  Key key(const Node& node) const;

  void fuse();
  void bring_transposed();
  void place_values();
  void count();
  int64_t products_a_sample(const Instr& instr, const Ref& weight) const;

  friend class Fusion;

  int moments_;
  Procedure procedure_;
  std::deque<Node> nodes_;
  std::map<Key, NodeId> known_;
  std::map<NodeId, Dot> dots_;
  std::map<int, int> changes_;  // of parameter-shaped values, by their number
  int writes_ = 0;
  std::set<std::string> names_;
  std::vector<Item> items_;
};

// `r`, from row `row` on.
inline Ref from_row(Ref r, int row, const Layout& layout, int columns) {
  r.row += row;
  r.offset += row * layout.target.pad(columns);
  return r;
}

}  // namespace pymgan
