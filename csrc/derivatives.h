// Forward and reverse differentiation of recorded nodes (graph.h). The nodes that come out are nodes again, so the two
// can be applied to each other's results: reverse over forward gives Hessian-vector products, and once more in front of
// that the gradient of a gradient penalty. What has been computed before is found, not made again: the cotangents of
// tangents are the first backward pass.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph.h"

namespace pymgan {

using Tape = std::vector<NodeId>;           // in the order of their making: arguments first
using Jets = std::map<NodeId, NodeId>;      // of nodes: their tangents, or their cotangents; absent: zero
NodeId at(const Jets& jets, NodeId node);   // kZero where there is none
Tape joined(const Tape& a, const Tape& b);  // both, in order

// One network on one batch.
struct Pass {
  Player player;
  std::string name;
  Ref parameters;
  NodeId input = kZero, output = kZero;
  Tape tape;
  Jets cotangents;  // after backward
};

// `out` (optional) receives the output.
Pass forward(Graph& g, Player player, const std::string& name, Ref parameters, NodeId input, Ref out = {});

// A direction in which parameters move, for each sample by a factor of its own (absent: 1).
struct Direction {
  Ref of, towards;  // of: the parameters that the tape reads; towards absent: they stand still
  Ref factor;
  // rowsum(slope [rows][1]) += the change of a result whose cotangents are `cotangents`, by a direction of factor 1
  Ref slope;
  const Jets* cotangents = nullptr;
};

// Tangents of the tape's nodes, from those of its leaves; `made` receives the nodes they consist of.
Jets push_forward(Graph& g, const Tape& tape, Jets leaves, const Direction& direction, const std::string& suffix,
                  Tape& made);

// Cotangents of the tape's nodes and of what they read, from those of its results. limits: of how many samples a node's
// cotangent is wanted; parameters: that the results are functions of, other ones are directions; `made` receives the
// nodes they consist of.
Jets pull_back(Graph& g, const Tape& tape, const Jets& results, const std::map<NodeId, int>& limits, Ref parameters,
               const std::string& suffix, Tape* made = nullptr);

// d result / d parameters, read off a pull_back: the tensors' outer products, added to `out` or written there.
struct Contribution {
  int tensor;
  NodeId outputs, inputs;  // what W's outputs and inputs are contracted with
  bool bias;               // the outputs' sum is d / d bias
};
std::vector<Contribution> contributions(const Graph& g, const Tape& tape, const Jets& cotangents, Ref parameters);
std::vector<Contribution> scaled(Graph& g, std::vector<Contribution> all, Ref factor, int rows,
                                 const std::string& suffix);
// theta: out = theta - rate scale (the gradient) instead.
void write_gradient(Graph& g, const std::vector<Contribution>& all, Ref out, bool accumulate, Ref theta = {});

}  // namespace pymgan
