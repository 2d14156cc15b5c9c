// Sums over tasks, once all of them are done: an element is added up by one thread, in the order of the tasks.
#pragma once

#include "records.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

// What a pull-back with weights sums over tasks: v0 [C], then v_moment0 [C][moments], then with rates d_scale [C].
PYMGAN_DEVICE int64_t weighted_vectors(const Launch& l, const PullArguments& call) {
  return int64_t{l.cotangents} * (1 + l.tables.moments + (call.rates ? 1 : 0));
}

// Element i of those vectors, each packed [total], once all tasks are pulled back: added in the order of the tasks.
PYMGAN_DEVICE void weighted_sum(const Launch& l, const PullArguments& call, int64_t i) {
  const int64_t total = l.tables.total, vector = i / total, element = i % total;
  if (l.flat[element] < 0) return;
  const int64_t moments = int64_t{l.cotangents} * l.tables.moments;
  uint8_t halves = kBoth;
  Place place = l.places.v_out;
  int64_t number = vector;
  float* output = call.v0;
  if (vector < l.cotangents) {
    halves = l.halves[vector].keep;
  } else if (vector < l.cotangents + moments) {
    place = l.places.v_moment, number = vector - l.cotangents, output = call.v_moment0;
  } else {
    place = l.places.d_scale, number = vector - l.cotangents - moments, output = call.d_scale;
  }
  if (!output) return;
  float sum = 0;
  const bool wanted = halves & (element < l.tables.start[1] ? kGenerator : kDiscriminator);
  for (int64_t task = 0; wanted && task < call.tasks; ++task)
    if (call.valid[task] && call.weight[task] != 0)
      sum += static_cast<float>(call.weight[task]) *
             l.workspace[task * l.places.each + place.at + number * total + element];
  output[number * l.parameters + l.flat[element]] = sum;
}

// Element i < total of a meta-gradient: the mean over valid tasks of each player's own descent.
PYMGAN_DEVICE void mean_descent(const Launch& l, const cpu::MetaCall<float>& call, int64_t i) {
  if (l.flat[i] < 0) return;
  const int64_t row = l.cotangents == 2 && i >= l.tables.start[1] ? l.tables.total : 0;
  float sum = 0;
  int64_t valid = 0;
  for (int64_t task = 0; task < call.tasks; ++task)
    if (call.valid[task]) sum += l.workspace[task * l.places.each + l.places.v_out.at + row + i], ++valid;
  call.gradient[l.flat[i]] = valid > 0 ? sum / static_cast<float>(valid) : 0.f;
}

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
