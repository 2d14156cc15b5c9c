// Windows: which sites (pixels of an image, samples of a sound) of its input each site of a layer's output sees, one
// for each tap of the kernel. A convolution, a transposed one, a Linear from an image (every site is a tap) and a
// Linear to one (every site has a tap of its own) differ in nothing else, so one family of kernels serves them all,
// forward and backward: the pairs seen from the input are a window too.
#pragma once

#include <cstdint>
#include <vector>

namespace pymgan {

struct PlanRow;

inline constexpr int kWindowTile = 16;  // output sites that one tile gathers at most

// Output sites that see the same taps: their products are one matrix product over the taps that are inside.
struct WindowGroup {
  int first_tap = 0, taps = 0;    // in Window::numbers
  int first_site = 0, sites = 0;  // likewise
  int first_run = 0, runs = 0;    // likewise: numbers of taps whose inputs lie one after the other, for every site
  int first_start = 0;            // likewise: of every site, how many inputs later than the first site its taps begin
  bool uniform = true;            // all its taps are that much later
};

struct Window {
  int in_sites = 1, out_sites = 1, taps = 1;
  std::vector<int32_t> from;        // [out_sites][taps]: the input's site; -1: outside, zero
  std::vector<WindowGroup> groups;  // every output site is in one
  std::vector<int32_t> numbers;     // taps, sites, runs and starts of the groups
  // The pairs of every tap: those of tap t are numbers first_pair[t] to first_pair[t + 1].
  std::vector<int32_t> first_pair, pair_in, pair_out;
  int most_taps = 0;  // of a group

  Window() = default;
  Window(int in_sites, int out_sites, int taps, std::vector<int32_t> from);

  bool uniform() const;  // every group is
  int64_t pairs() const { return static_cast<int64_t>(pair_in.size()); }
  Window seen_from_input() const;
};

// Of a convolution's row: spatial extents, kernel, stride, padding and dilation.
Window convolution(const PlanRow& row);

}  // namespace pymgan
