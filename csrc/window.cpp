#include "window.h"

#include <algorithm>
#include <map>
#include <utility>

#include "plan.h"

namespace pymgan {

Window::Window(int in, int out, int t, std::vector<int32_t> sites)
    : in_sites(in), out_sites(out), taps(t), from(std::move(sites)) {
  std::map<std::vector<int32_t>, std::vector<int32_t>> by_taps;
  for (int32_t site = 0; site < out_sites; ++site) {
    std::vector<int32_t> inside;
    for (int32_t tap = 0; tap < taps; ++tap)
      if (from[site * taps + tap] >= 0) inside.push_back(tap);
    by_taps[inside].push_back(site);
  }
  for (const auto& [inside, seeing] : by_taps) {
    WindowGroup group;
    group.first_tap = static_cast<int>(numbers.size());
    group.taps = static_cast<int>(inside.size());
    numbers.insert(numbers.end(), inside.begin(), inside.end());
    group.first_site = static_cast<int>(numbers.size());
    group.sites = static_cast<int>(seeing.size());
    numbers.insert(numbers.end(), seeing.begin(), seeing.end());
    group.first_run = static_cast<int>(numbers.size());
    auto seen = [&](int32_t site, size_t j) { return from[site * taps + inside[j]]; };
    for (size_t j = 0; j < inside.size(); ++j) {
      const bool follows = j > 0 && std::all_of(seeing.begin(), seeing.end(),
                                                [&](int32_t site) { return seen(site, j) == seen(site, j - 1) + 1; });
      if (follows)
        ++numbers.back();
      else
        numbers.push_back(1), ++group.runs;
    }
    group.first_start = static_cast<int>(numbers.size());
    for (int32_t site : seeing) {
      numbers.push_back(inside.empty() ? 0 : seen(site, 0) - seen(seeing[0], 0));
      for (size_t j = 0; j < inside.size(); ++j) group.uniform &= seen(site, j) - seen(seeing[0], j) == numbers.back();
    }
    most_taps = std::max(most_taps, group.taps);
    groups.push_back(group);
  }
  for (int32_t tap = 0; tap < taps; ++tap) {
    first_pair.push_back(static_cast<int32_t>(pair_in.size()));
    for (int32_t site = 0; site < out_sites; ++site)
      if (const int32_t seen = from[site * taps + tap]; seen >= 0) pair_in.push_back(seen), pair_out.push_back(site);
  }
  first_pair.push_back(static_cast<int32_t>(pair_in.size()));
}

bool Window::uniform() const {
  return std::all_of(groups.begin(), groups.end(), [](const WindowGroup& group) { return group.uniform; });
}

Window Window::seen_from_input() const {
  std::vector<int32_t> back(static_cast<size_t>(in_sites) * taps, -1);  // a tap joins an input to one output at most
  for (int32_t tap = 0; tap < taps; ++tap)
    for (int32_t i = first_pair[tap]; i < first_pair[tap + 1]; ++i) back[pair_in[i] * taps + tap] = pair_out[i];
  return {out_sites, in_sites, taps, std::move(back)};
}

Window convolution(const PlanRow& row) {
  const size_t dims = row.kernel.size();
  const std::vector<int64_t> in(row.in_shape.begin() + 1, row.in_shape.end()),
      out(row.out_shape.begin() + 1, row.out_shape.end());
  const int in_sites = static_cast<int>(numel(in)), out_sites = static_cast<int>(numel(out)),
            taps = static_cast<int>(numel(row.kernel));
  std::vector<int32_t> from(static_cast<size_t>(out_sites) * taps, -1);
  for (int site = 0; site < out_sites; ++site)
    for (int tap = 0; tap < taps; ++tap) {
      int64_t seen = 0, rest_site = site, rest_tap = tap, place = 1;
      for (size_t d = dims; d-- > 0 && seen >= 0; place *= in[d]) {
        const int64_t o = rest_site % out[d], t = rest_tap % row.kernel[d];
        rest_site /= out[d], rest_tap /= row.kernel[d];
        int64_t at;  // along this dimension
        if (row.transposed) {
          const int64_t scaled = o + row.padding[d] - t * row.dilation[d];
          at = scaled % row.stride[d] == 0 ? scaled / row.stride[d] : -1;
        } else {
          at = o * row.stride[d] - row.padding[d] + t * row.dilation[d];
        }
        seen = at >= 0 && at < in[d] ? seen + at * place : -1;
      }
      from[static_cast<size_t>(site) * taps + tap] = static_cast<int32_t>(seen);
    }
  return {in_sites, out_sites, taps, std::move(from)};
}

}  // namespace pymgan
