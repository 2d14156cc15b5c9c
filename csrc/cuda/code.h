// A Procedure and what its instructions refer to, as plain records that a GPU reads: every operand is a slot and an
// offset, every table an array of numbers.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "../program.h"

namespace pymgan::cuda {

// How this engine lays out: weights by rows [n][pad(inputs)], rows of samples padded to 16 bytes.
Target cuda_target();

// Of products: float32 takes three products of TF32 numbers, the others one of what they are.
enum class Precision : uint8_t { float32, tf32, bf16 };

inline constexpr int kTrace = 8;  // loss_g, loss_d, norm_g, norm_d, fake mean and deviation, real mean and deviation

struct Operand {
  int16_t slot = -1;   // a Slot; -1: absent
  int32_t offset = 0;  // in elements, from the slot's start
  int32_t ld = 0;      // between rows
  int32_t bias = -1;   // of a tensor's bias, from the slot's start; -1: none
  int8_t player = -1;  // of a parameter-shaped value; -1: both
  int8_t rank = -1;    // of a temp, the block of a team in whose shared memory it lies; -1: the team has them elsewhere
};

// Instr, see program.h. Copied 16 bytes at a time.
struct alignas(16) Code {
  Op op = Op::fill;
  uint8_t players = kBoth;
  Player player = Player::generator;
  Apply apply = Apply::store;
  Activation activation = Activation::identity;
  bool adjoint = false, accumulate = false, traced = true;
  int32_t order = 0, index = 0;
  int32_t rows = 0, columns = 0, depth = 0, rows0 = 0, rows1 = 0, fakes = 0, reals = 0;
  int32_t tensor = -1, window = -1, map = -1;
  int32_t elements = 0;  // fill, add: of out
  float attributes[2] = {};
  Operand a0, b0, a1, b1, bias, scale, dot, ref, q, g, theta, moment, rate_scale;
  Operand out, moment_next, pre, dot_out, c_g, c_d, cc_g, cc_d, stats, v, v_moment, d_scale, scratch;
};

// Offsets are into Tables::numbers.
struct TensorRecord {
  int32_t n = 0, k = 0, taps = 1, ld = 0;  // weight [n] rows of [taps][k]; blocks.h says where
  int32_t window = -1;
  int32_t bias_sites = 1, bias_ld = 0, bias_size = 0;
  int32_t elements = 0;              // of a sample; of a diagonal
  int32_t of = -1;                   // [elements] number of each element
  int32_t start = -1, members = -1;  // of each number, its elements: members[start[i]] to members[start[i + 1]]
  int32_t offset = 0;                // of the weight in its player's part
};

struct GroupRecord {
  int32_t taps = 0, first_tap = 0;    // [taps]
  int32_t sites = 0, first_site = 0;  // [sites]
};

struct WindowRecord {
  int32_t in_sites = 1, out_sites = 1, taps = 1;
  int32_t from = 0;                     // [out_sites][taps]
  int32_t groups = 0, first_group = 0;  // in Tables::groups
  int32_t first_pair = 0;               // [taps + 1]
  int32_t pair_in = 0, pair_out = 0;    // [pairs]
};

struct MapRecord {  // out[i] = the sum of factor x[source] over links start[i] to start[i + 1]
  int32_t out = 0, start = 0, source = 0, factor = 0;  // factor: into Tables::factors
};

struct GroupsRecord {  // of a softmax
  int32_t count = 0, start = 0, members = 0;
};

struct SpectralRecord {
  int32_t tensor = 0, u = 0, v = 0, iterations = 1;
  float eps = 0;
};

struct FormRecord {
  int32_t channels = 1, sites = 1, ld = 1;
};

// Bytes that a launch reads, and where each part of them will be once they are copied to `base`. The bytes do not
// depend on where that is.
class Image {
 public:
  explicit Image(const char* base = nullptr) : base_(base) {}
  template <class T>
  const T* put(const std::vector<T>& values) {
    const size_t at = (bytes_.size() + 15) / 16 * 16;
    bytes_.resize(at + values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
    return reinterpret_cast<const T*>(base_ + at);
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  const char* base_;
  std::vector<char> bytes_;
};

// Everything that instructions refer to.
struct Tables {
  const TensorRecord* tensors = nullptr;
  const WindowRecord* windows = nullptr;  // forward, then back, of each
  const GroupRecord* groups = nullptr;
  const MapRecord* maps = nullptr;  // forward, then back, of each
  const GroupsRecord* softmaxes = nullptr;
  const SpectralRecord* spectral = nullptr;
  const int32_t* numbers = nullptr;
  const float* factors = nullptr;

  int32_t spectral_count = 0, spectral_size = 0, moments = 0;
  int32_t size[2] = {}, start[2] = {}, total = 0;  // of the players in a packed vector
  FormRecord z, x;
  int32_t extents = 0, extent[3] = {}, channels = 1;  // of a sample

  Loss loss = Loss::nonsaturating;
  bool relative = false;
  float smoothing = 0;
  PenaltyKind penalty = PenaltyKind::none;
  float penalty_weight = 0;  // times `every`
  float momentum = 0, betas[2] = {}, eps = 0;
  double exact_betas[2] = {};
  bool brightness = false, translation = false, cutout = false;
  float instance_noise = 0;
};

class Encoding {
 public:
  explicit Encoding(const Program& program);
  Tables tables(Image& image) const;
  const std::vector<TensorRecord>& tensors() const { return tensors_; }

 private:
  int32_t put(const std::vector<int32_t>& numbers);
  int32_t put_members(const std::vector<int32_t>& of, int count);  // start [count + 1], then members
  void add_window(const Window& window);
  void add_map(const FixedMap& map);

  std::vector<TensorRecord> tensors_;
  std::vector<WindowRecord> windows_;
  std::vector<GroupRecord> groups_;
  std::vector<MapRecord> maps_;
  std::vector<GroupsRecord> softmaxes_;
  std::vector<SpectralRecord> spectral_;
  std::vector<int32_t> numbers_;
  std::vector<float> factors_;
  Tables tables_;
};

// slice: elements of temps in the shared memory of each block of a team; 0: they lie together.
std::vector<Code> encode(const Procedure& procedure, const Layout& layout, int64_t slice);

}  // namespace pymgan::cuda
