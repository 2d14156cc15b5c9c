#include "fixed_map.h"

#include <algorithm>
#include <tuple>

namespace pymgan {
namespace {

using Link = FixedMap::Link;

// Takes out of `links` the runs in which `next` follows, of at least `least`.
template <class Key, class Next>
void take_runs(std::vector<Link>& links, FixedBlock::Kind kind, size_t least, const Key& key, const Next& next,
               std::vector<FixedBlock>& blocks) {
  std::stable_sort(links.begin(), links.end(), [&](const Link& a, const Link& b) { return key(a) < key(b); });
  std::vector<Link> rest;
  for (size_t i = 0, end; i < links.size(); i = end) {
    for (end = i + 1; end < links.size() && next(links[end - 1], links[end]); ++end) {
    }
    if (end - i >= least)
      blocks.push_back({kind, links[i].to, links[i].from, static_cast<int32_t>(end - i), links[i].factor});
    else
      rest.insert(rest.end(), links.begin() + i, links.begin() + end);
  }
  links = std::move(rest);
}

}  // namespace

FixedMap::FixedMap(int in, int out, std::vector<Link> links) : in(in), out(out) {
  constexpr size_t kWorthwhile = 4;
  using Kind = FixedBlock::Kind;
  take_runs(
      links, Kind::sum, kWorthwhile, [](const Link& l) { return std::tuple(l.to, l.from); },
      [](const Link& a, const Link& b) { return b.to == a.to && b.from == a.from + 1 && b.factor == a.factor; },
      blocks);
  take_runs(
      links, Kind::spread, kWorthwhile, [](const Link& l) { return std::tuple(l.from, l.to); },
      [](const Link& a, const Link& b) { return b.from == a.from && b.to == a.to + 1 && b.factor == a.factor; },
      blocks);
  take_runs(
      links, Kind::copy, 1, [](const Link& l) { return std::tuple(l.to - l.from, l.to); },
      [](const Link& a, const Link& b) { return b.to == a.to + 1 && b.from == a.from + 1 && b.factor == a.factor; },
      blocks);
  // One output after the other.
  std::stable_sort(blocks.begin(), blocks.end(), [](const FixedBlock& a, const FixedBlock& b) { return a.to < b.to; });
}

std::vector<Link> FixedMap::links() const {
  std::vector<Link> all;
  for (const FixedBlock& b : blocks)
    for (int32_t i = 0; i < b.count; ++i)
      all.push_back({b.kind == FixedBlock::Kind::sum ? b.to : b.to + i,
                     b.kind == FixedBlock::Kind::spread ? b.from : b.from + i, b.factor});
  return all;
}

FixedMap FixedMap::transposed() const {
  std::vector<Link> turned = links();
  for (Link& l : turned) std::swap(l.to, l.from);
  return FixedMap(out, in, std::move(turned));
}

}  // namespace pymgan
