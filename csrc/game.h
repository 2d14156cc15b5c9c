// The game's procedures as graphs; Program decides which are made.
#pragma once

#include "graph.h"

namespace pymgan {

// How a pull-back finds its directions: v itself, or w, made by the adjoint of the update.
struct Pull {
  const std::vector<Halves>& cotangents;
  bool rates;     // derivatives of the rates are wanted
  bool gradient;  // F is: for these or for an optimiser's adjoint
  bool direct;    // v itself, whose factor is then the rate
  StepForm form;
};

// fused: see Program
void lower_step(Graph& graph, const Game& game, bool fused, StepForm form);
void lower_pull(Graph& graph, const Game& game, const Pull& pull);
void lower_gradients(Graph& graph, const Game& game, bool full);
void lower_generator(Graph& graph, int batch, bool vjp);

// Step and pull-back of extragradient (extragradient.cpp).
void lower_extragradient_step(Graph& graph, const Game& game, bool penalised);
void lower_extragradient_pull(Graph& graph, const Game& game, const Pull& pull);

}  // namespace pymgan
