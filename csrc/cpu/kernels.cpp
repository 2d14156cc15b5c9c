// The kernels of one instruction set: compiled once for each, with its flags and PYMGAN_ISA_NAMESPACE (see
// CMakeLists.txt).
#include "kernels.h"

#include "kernels_layout.h"
#include "kernels_maps.h"
#include "kernels_noise.h"
#include "kernels_product.h"
#include "kernels_spectral.h"
#include "kernels_vector.h"
#include "kernels_window.h"

#define PYMGAN_STRING(x) PYMGAN_STRING_OF(x)
#define PYMGAN_STRING_OF(x) #x

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

template <class T>
constexpr Kernels<T> table() {
  return {PYMGAN_STRING(PYMGAN_ISA_NAMESPACE),
          &product<T>,
          &outer<T>,
          &window_product<T>,
          &window_outer<T>,
          &window_outer_few<T>,
          &elementwise<T>,
          &fixed_map<T>,
          &diagonal<T>,
          &diagonal_outer<T>,
          &softmax<T>,
          &head<T>,
          &penalty<T>,
          &update<T>,
          &update_adjoint<T>,
          &row_dot<T>,
          &column_sum<T>,
          &dot<T>,
          &matrix_times<T>,
          &transposed_matrix_times<T>,
          &rank_one<T>,
          &transpose<T>,
          &window_transpose<T>,
          &pack<T>,
          &unpack<T>,
          &noise<T>,
          &normals<double>};
}

constexpr Kernels<float> kFloat = table<float>();
constexpr Kernels<double> kDouble = table<double>();

}  // namespace

const Kernels<float>& f32() { return kFloat; }
const Kernels<double>& f64() { return kDouble; }

}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
