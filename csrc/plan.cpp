#include "plan.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace pymgan {

int64_t numel(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t extent : shape) n *= extent;
  return n;
}

int64_t PlanRow::in_features() const { return numel(in_shape); }
int64_t PlanRow::out_features() const { return numel(out_shape); }
int64_t PlanRow::kinds() const { return of.empty() ? 0 : int64_t{*std::max_element(of.begin(), of.end())} + 1; }

bool Network::convolves() const {
  return std::any_of(rows.begin(), rows.end(), [](const PlanRow& r) { return r.kind == LayerKind::convolution; });
}

const std::vector<int64_t>& Network::out_shape() const { return rows.empty() ? in_shape : rows.back().out_shape; }

namespace {

[[noreturn]] void fail(const std::string& network, const PlanRow& row, const std::string& what) {
  throw std::invalid_argument("plan: " + network + " layer " + row.name + ": " + what);
}

using Range = std::pair<int64_t, int64_t>;  // [begin, end) in the flat phi

// Features beyond this cannot be indexed by the engines' 32-bit row counts.
constexpr int64_t kMaximumFeatures = int64_t{1} << 28;

void check_convolution(const std::string& network, const PlanRow& row, std::vector<Range>& ranges) {
  const size_t dims = row.kernel.size();
  if (dims < 1 || dims > 2 || row.in_shape.size() != dims + 1 || row.out_shape.size() != dims + 1)
    fail(network, row, "expected shapes (channels, extents ...) of one or two dimensions");
  int64_t taps = 1;
  for (size_t d = 0; d < dims; ++d) {
    for (const auto* numbers : {&row.stride, &row.padding, &row.dilation})
      if (numbers->size() != dims) fail(network, row, "expected a stride, padding and dilation for each dimension");
    if (row.kernel[d] < 1 || row.stride[d] < 1 || row.dilation[d] < 1 || row.padding[d] < 0)
      fail(network, row, "expected kernel, stride and dilation from 1 and padding from 0");
    for (int64_t n : {row.kernel[d], row.stride[d], row.dilation[d], row.padding[d]})
      if (n > kMaximumFeatures) fail(network, row, "expected numbers up to 2^28");
    taps *= row.kernel[d];
    // The larger side of a convolution has room for the windows of the smaller; what is left over is less than a stride
    // or than the output padding, which is below the stride or the dilation.
    const int64_t large = row.transposed ? row.out_shape[d + 1] : row.in_shape[d + 1],
                  small = row.transposed ? row.in_shape[d + 1] : row.out_shape[d + 1];
    const int64_t left =
        large + 2 * row.padding[d] - row.dilation[d] * (row.kernel[d] - 1) - 1 - (small - 1) * row.stride[d];
    if (left < 0 || left >= std::max(row.stride[d], row.dilation[d]))
      fail(network, row, "expected extents that fit kernel, stride, padding and dilation");
  }
  if (row.weight < 0) fail(network, row, "expected a weight offset");
  if (taps > kMaximumFeatures / row.in_shape[0] || taps * row.in_shape[0] > kMaximumFeatures / row.out_shape[0] ||
      taps > kMaximumFeatures / numel({row.in_shape.begin() + 1, row.in_shape.end()}) ||
      taps > kMaximumFeatures / numel({row.out_shape.begin() + 1, row.out_shape.end()}))
    fail(network, row, "expected at most 2^28 weights, and taps times sites");
  ranges.emplace_back(row.weight, row.weight + taps * row.in_shape[0] * row.out_shape[0]);
  if (row.bias >= 0) ranges.emplace_back(row.bias, row.bias + row.out_shape[0]);
}

void check_of(const std::string& network, const PlanRow& row) {
  if (static_cast<int64_t>(row.of.size()) != row.in_features())
    fail(network, row, "expected a parameter or group for each feature");
  std::vector<bool> seen(row.of.size());
  for (int32_t of : row.of) {
    if (of < 0 || of >= static_cast<int32_t>(seen.size()))
      fail(network, row, "expected parameters or groups from 0, no more than features");
    seen[of] = true;
  }
  if (std::find(seen.begin(), seen.begin() + row.kinds(), false) != seen.begin() + row.kinds())
    fail(network, row, "expected a feature for each parameter or group");
}

void check_fixed(const std::string& network, const PlanRow& row) {
  const auto count = static_cast<int64_t>(row.sources.size());
  bool fits = static_cast<int64_t>(row.starts.size()) == row.out_features() + 1 && row.starts[0] == 0 &&
              std::is_sorted(row.starts.begin(), row.starts.end()) && row.starts.back() == count &&
              static_cast<int64_t>(row.factors.size()) == count && count <= kMaximumFeatures;
  for (int32_t source : row.sources) fits &= source >= 0 && source < row.in_features();
  for (double factor : row.factors) fits &= std::isfinite(factor);
  if (!fits) fail(network, row, "expected sources within the input, with finite factors, for each output");
}

void check_row(const std::string& network, const Network& net, int index, std::vector<Range>& ranges) {
  const PlanRow& row = net.rows[index];
  auto shape_of = [&](int input) -> const std::vector<int64_t>& {
    if (input < -1 || input >= index)
      fail(network, row, "expected the input to be a row before, got row " + std::to_string(input));
    return input < 0 ? net.in_shape : net.rows[input].out_shape;
  };
  if (row.in_shape != shape_of(row.input)) fail(network, row, "expected the input shape to be the shape before it");
  for (const auto* shape : {&row.in_shape, &row.out_shape})
    for (int64_t extent : *shape)
      if (extent < 1 || extent > kMaximumFeatures)
        fail(network, row, "expected extents from 1 to 2^28, got " + std::to_string(extent));
  if (row.in_features() > kMaximumFeatures || row.out_features() > kMaximumFeatures)
    fail(network, row, "expected at most 2^28 features a sample");
  if (row.kind == LayerKind::convolution) {
    check_convolution(network, row, ranges);
  } else if (row.kind == LayerKind::linear) {
    if (row.in_shape.size() != 1 || row.out_shape.size() != 1)
      fail(network, row, "expected a flat input of one sample (put nn.Flatten() before it)");
    if (row.weight < 0) fail(network, row, "expected a weight offset");
    ranges.emplace_back(row.weight, row.weight + row.in_features() * row.out_features());
    if (row.bias >= 0) ranges.emplace_back(row.bias, row.bias + row.out_features());
  } else if (row.kind == LayerKind::diagonal || row.kind == LayerKind::prelu) {
    if (row.in_shape != row.out_shape) fail(network, row, "expected the output to have the input's shape");
    check_of(network, row);
    if (row.weight < 0) fail(network, row, "expected a weight offset");
    if (row.kind == LayerKind::prelu && row.bias >= 0) fail(network, row, "expected no bias");
    ranges.emplace_back(row.weight, row.weight + row.kinds());
    if (row.bias >= 0) ranges.emplace_back(row.bias, row.bias + row.kinds());
  } else {
    if (row.weight >= 0 || row.bias >= 0) fail(network, row, "expected no parameters");
    if (row.kind == LayerKind::fixed) return check_fixed(network, row);
    if (row.kind == LayerKind::add && row.in_shape != shape_of(row.other))
      fail(network, row, "expected two inputs of one shape");
    if (row.kind == LayerKind::normalise || row.kind == LayerKind::softmax) check_of(network, row);
    if (row.kind == LayerKind::normalise && !(row.attributes[0] >= 0 && std::isfinite(row.attributes[0])))
      fail(network, row, "expected a finite eps from 0");
    if (row.in_features() != row.out_features()) fail(network, row, "expected as many outputs as inputs");
  }
}

// One u follows the other.
void check_spectral(const std::string& network, const Network& net, bool allowed) {
  int64_t at = 0;
  for (const PlanRow& row : net.rows) {
    if (row.u < 0) continue;
    if (!allowed) fail(network, row, "expected no spectral norm: it is for discriminators");
    if (row.kind != LayerKind::linear && row.kind != LayerKind::convolution)
      fail(network, row, "expected a spectral norm of a linear layer or a convolution");
    if (row.u != at || row.iterations < 1 || !(row.attributes[0] >= 0))
      fail(network, row, "expected u after those before it, at least one iteration and eps from 0");
    at += row.out_shape[0];
  }
}

void check_network(const std::string& name, const Network& net, int64_t begin, int64_t end) {
  if (net.in_shape.empty() || numel(net.in_shape) < 1)
    throw std::invalid_argument("plan: " + name + ": expected a non-empty input shape");
  std::vector<Range> ranges;
  for (int i = 0; i < static_cast<int>(net.rows.size()); ++i) check_row(name, net, i, ranges);
  std::sort(ranges.begin(), ranges.end());
  int64_t at = begin;
  for (auto [first, last] : ranges) {
    if (first != at)
      throw std::invalid_argument("plan: " + name + ": parameters overlap or leave a gap at offset " +
                                  std::to_string(at));
    at = last;
  }
  if (at != end || begin == end)
    throw std::invalid_argument("plan: " + name + ": expected its layers to hold " + std::to_string(end - begin) +
                                " > 0 parameters, got " + std::to_string(at - begin));
}

}  // namespace

int64_t Plan::spectral() const {
  int64_t size = 0;
  for (const PlanRow& row : discriminator.rows)
    if (row.u >= 0) size += row.out_shape[0];
  return size;
}

void Plan::validate() const {
  check_network("generator", generator, 0, generator_parameters);
  check_network("discriminator", discriminator, generator_parameters, parameters);
  check_spectral("generator", generator, false);
  check_spectral("discriminator", discriminator, true);
  if (numel(generator.out_shape()) != numel(discriminator.in_shape))
    throw std::invalid_argument(
        "plan: expected the generator's output to have the " + std::to_string(numel(discriminator.in_shape)) +
        " values of the discriminator's input, got " + std::to_string(numel(generator.out_shape())));
  if (numel(discriminator.out_shape()) != 1)
    throw std::invalid_argument("plan: expected the discriminator to give one score a sample, got " +
                                std::to_string(numel(discriminator.out_shape())));
}

}  // namespace pymgan
