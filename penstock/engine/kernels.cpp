// One step of a Llama-family model on a CPU, in one call: packed matrix products in float32, bfloat16 or int8, fused
// RMSNorm, rotary embedding and SiLU, and attention over a paged KV cache. Sums are in float32.
//
// The same source is compiled several times, for AVX-512 (bf16, VNNI), for AVX2 and for anything else; kernels.py loads
// the best that the processor has. GCC's vector types make most of it portable; only the innermost loops use
// intrinsics.
//
// Every sum is taken in an order that depends on nothing but its own row, so a token's result is the same to the last
// bit whether it is computed alone, in a batch, or again after preemption. Keep it so: tests compare bits.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define PENSTOCK_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__)
#define PENSTOCK_AVX2 1
#endif

namespace {

constexpr int kVersion = 1;      // of the structures below, checked by kernels.py
constexpr int kBlock = 16;       // tokens per KV block
constexpr int kAlignment = 64;   // bytes

#if defined(PENSTOCK_AVX512)
constexpr int kLanes = 16;       // floats in a register
constexpr int kPanelVectors = 4; // registers across a panel
constexpr int kMaxRows = 6;      // rows of a tile; its sums, a row's input and the weights fit into the registers
constexpr int kMaxQueries = 8;   // heads, of one token or of several, that read the same keys together
#elif defined(PENSTOCK_AVX2)
constexpr int kLanes = 8;
constexpr int kPanelVectors = 2;
constexpr int kMaxRows = 4;
constexpr int kMaxQueries = 4;
#else
constexpr int kLanes = 4;
constexpr int kPanelVectors = 2;
constexpr int kMaxRows = 4;
constexpr int kMaxQueries = 4;
#endif
constexpr int kPanel = kLanes * kPanelVectors;  // outputs that are computed together, side by side in memory

struct bf16 {
  uint16_t bits;
};

typedef float floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t halves __attribute__((vector_size(kLanes * 2)));
constexpr int kParts = kBlock / kLanes;  // registers across a KV block's tokens

template <class V, class T>
inline V load(const T* from) {
  V value;
  memcpy(&value, from, sizeof value);
  return value;
}

template <class V, class T>
inline void store(T* to, V value) {
  memcpy(to, &value, sizeof value);
}

inline float widen(float value) { return value; }

inline float widen(bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  return load<float>(&bits);
}

template <class T>
inline T narrow(float value);

template <>
inline float narrow<float>(float value) {
  return value;
}

// To nearest, ties to even; a NaN stays one.
template <>
inline bf16 narrow<bf16>(float value) {
  const uint32_t bits = load<uint32_t>(&value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40;
  return {static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded)};
}

inline floats load_wide(const float* from) { return load<floats>(from); }

inline floats load_wide(const bf16* from) {
  return reinterpret_cast<floats>(__builtin_convertvector(load<halves>(from), words) << 16);
}

// e^x, right to about 2 units in the last place; the polynomial of Cephes (Moshier). Below -87 it is about e^-87.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifter = 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
  const float n = (x * 1.44269504088896341f + shifter) - shifter;
  x = x - n * 0.693359375f;
  x = x - n * -2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * x + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  y = y * x * x + x + 1.0f;
  const int32_t power = (static_cast<int32_t>(n) + 127) << 23;
  return y * load<float>(&power);
}

inline int32_t nearest(float x) {
  const float shifter = 12582912.0f;
  return static_cast<int32_t>((x + shifter) - shifter);
}

inline size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

inline int rounded_up(int n, int to) { return (n + to - 1) / to * to; }

// ---------------------------------------------------------------------------------------------------------------------
// What Python hands over. Kept in step with kernels.py, field by field.

enum Kind : int32_t { kFloat32 = 0, kBf16 = 1, kInt8 = 2 };

struct Linear {
  const void* packed;
  const float* scales;   // int8: of each output; padded to whole panels
  const int32_t* sums;   // int8: of each output's weights
  const float* bias;     // or null; padded to whole panels
  int32_t outputs, inputs;
};

struct Layer {
  const float* input_norm;
  const float* post_norm;
  const float* query_norm;  // or null
  const float* key_norm;    // or null
  Linear qkv, output, gate_up, down;
};

struct Model {
  int32_t kind, layers, hidden, inner, heads, kv_heads, head_dim, vocabulary, threads, unused;
  float epsilon, scale;
  const void* embedding;    // float in float32, else bf16
  const float* final_norm;
  const float* rope;        // [positions, head_dim]: cosines, then sines
  const Layer* layer;
  Linear head;
  void* keys;               // per layer [block][kv head][head_dim][16]; bf16 has pairs of dimensions side by side
  void* values;             // per layer [block][kv head][16][head_dim rounded up to 16]
  size_t key_layer, value_layer;  // elements per layer
};

struct Step {
  int32_t tokens, samples, table_width, longest;  // `longest` context in tokens
  const int32_t *ids, *positions, *rows, *tables, *sampled;
  float* logits;
  int32_t* best;
  void* workspace;
};

// ---------------------------------------------------------------------------------------------------------------------
// Matrix products: out[m][n] = sum over k of x[m][k] * weight[n][k]. Weights are packed in panels of kPanel outputs.

// Where one product's result goes.
struct Target {
  float* out;
  int outputs;  // of the matrix, and the distance between rows of `out`
  const float* bias;
};

inline void put(const Target& target, int row, int column, floats value) {
  const int valid = target.outputs - column;
  if (valid <= 0) return;
  if (target.bias) value += load<floats>(target.bias + column);
  float* to = target.out + static_cast<size_t>(row) * target.outputs + column;
  memcpy(to, &value, std::min(valid, kLanes) == kLanes ? sizeof value : valid * sizeof(float));
}

// float32: a panel is [k][kPanel].
struct Float32Product {
  typedef float Activation;
  typedef float Weight;
  const float* x;
  const float* packed;
  int inputs;

  static size_t panel_size(int inputs) { return static_cast<size_t>(inputs) * kPanel; }

  template <int R, int B>
  void tile(int row, int panel, const Target& target) const {
    floats sum[R][B * kPanelVectors] = {};
    const float* weights = packed + panel * panel_size(inputs);
    const float* rows = x + static_cast<size_t>(row) * inputs;
    for (int k = 0; k < inputs; k++) {
      for (int b = 0; b < B; b++) {
        for (int j = 0; j < kPanelVectors; j++) {
          const float* from = weights + b * panel_size(inputs) + static_cast<size_t>(k) * kPanel + j * kLanes;
          const floats w = load<floats>(from);
          for (int r = 0; r < R; r++) sum[r][b * kPanelVectors + j] += rows[static_cast<size_t>(r) * inputs + k] * w;
        }
      }
    }
    for (int r = 0; r < R; r++)
      for (int j = 0; j < B * kPanelVectors; j++) put(target, row + r, panel * kPanel + j * kLanes, sum[r][j]);
  }
};

// bf16: a panel is [k / 2][kPanel][2].
struct Bf16Product {
#if defined(PENSTOCK_AVX512)
  typedef bf16 Activation;
#else
  typedef float Activation;
#endif
  typedef bf16 Weight;
  const Activation* x;
  const bf16* packed;
  int inputs;

  static size_t panel_size(int inputs) { return static_cast<size_t>(inputs) * kPanel; }

  template <int R, int B>
  void tile(int row, int panel, const Target& target) const {
    const bf16* weights = packed + panel * panel_size(inputs);
    const Activation* rows = x + static_cast<size_t>(row) * inputs;
#if defined(PENSTOCK_AVX512)
    __m512 sum[R][B * kPanelVectors];
    for (int r = 0; r < R; r++)
      for (int j = 0; j < B * kPanelVectors; j++) sum[r][j] = _mm512_setzero_ps();
    for (int k = 0; k < inputs; k += 2) {
      __m512bh pair[R];
      for (int r = 0; r < R; r++)
        pair[r] = (__m512bh)_mm512_set1_epi32(load<int32_t>(rows + static_cast<size_t>(r) * inputs + k));
      for (int b = 0; b < B; b++) {
        for (int j = 0; j < kPanelVectors; j++) {
          const bf16* from = weights + b * panel_size(inputs) + static_cast<size_t>(k) * kPanel + j * kLanes * 2;
          const __m512bh w = (__m512bh)_mm512_loadu_si512(from);
          for (int r = 0; r < R; r++) {
            __m512& s = sum[r][b * kPanelVectors + j];
            s = _mm512_dpbf16_ps(s, pair[r], w);
          }
        }
      }
    }
    for (int r = 0; r < R; r++)
      for (int j = 0; j < B * kPanelVectors; j++) put(target, row + r, panel * kPanel + j * kLanes, (floats)sum[r][j]);
#else
    floats sum[R][B * kPanelVectors] = {};
    for (int k = 0; k < inputs; k += 2) {
      for (int b = 0; b < B; b++) {
        floats even[kPanelVectors], odd[kPanelVectors];
        for (int j = 0; j < kPanelVectors; j++) {
          const bf16* from = weights + b * panel_size(inputs) + static_cast<size_t>(k) * kPanel + j * kLanes * 2;
          const words both = load<words>(from);
          even[j] = reinterpret_cast<floats>(both << 16);
          odd[j] = reinterpret_cast<floats>(both & 0xffff0000u);
        }
        for (int r = 0; r < R; r++) {
          const float* at = rows + static_cast<size_t>(r) * inputs + k;
          for (int j = 0; j < kPanelVectors; j++) sum[r][b * kPanelVectors + j] += at[0] * even[j];
          for (int j = 0; j < kPanelVectors; j++) sum[r][b * kPanelVectors + j] += at[1] * odd[j];
        }
      }
    }
    for (int r = 0; r < R; r++)
      for (int j = 0; j < B * kPanelVectors; j++) put(target, row + r, panel * kPanel + j * kLanes, sum[r][j]);
#endif
  }
};

// int8: weights are symmetric per output, activations symmetric per token, so sums of products are exact integers.
// VNNI multiplies unsigned by signed bytes, so activations are stored with 128 added, and 128 * sum(weights) is taken
// off. A panel is [k / 4][kPanel][4] with VNNI, else [k / 2][kPanel][2].
struct Int8Product {
  typedef float Activation;
  typedef int8_t Weight;
#if defined(PENSTOCK_AVX512)
  typedef uint8_t Quantized;
  static constexpr int kGroup = 4;
  static constexpr int kOffset = 128;
#else
  typedef int16_t Quantized;
  static constexpr int kGroup = 2;
  static constexpr int kOffset = 0;
#endif
#if defined(PENSTOCK_AVX2)
  typedef __m256i Wide;

  static Wide widened(const int8_t* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }

  static Wide plus_products(Wide sum, int32_t two, Wide weights) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_set1_epi32(two), weights));
  }
#elif defined(__SSE2__) && !defined(PENSTOCK_AVX512)
  typedef __m128i Wide;

  static Wide widened(const int8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);  // the byte is the upper half of its word
  }

  static Wide plus_products(Wide sum, int32_t two, Wide weights) {
    return _mm_add_epi32(sum, _mm_madd_epi16(_mm_set1_epi32(two), weights));
  }
#endif
  const Quantized* x;
  const int8_t* packed;
  int inputs;
  const float* row_scales;
  const float* scales;
  const int32_t* sums;

  static size_t panel_size(int inputs) { return static_cast<size_t>(inputs) * kPanel; }

  void finish(const Target& target, int row, int column, ints sum) const {
    if (column >= target.outputs) return;
    if (kOffset) sum -= load<ints>(sums + column) * kOffset;
    put(target, row, column, __builtin_convertvector(sum, floats) * load<floats>(scales + column) * row_scales[row]);
  }

  template <int R, int B>
  void tile(int row, int panel, const Target& target) const {
    const int8_t* weights = packed + panel * panel_size(inputs);
    const Quantized* rows = x + static_cast<size_t>(row) * inputs;
#if defined(PENSTOCK_AVX512)
    __m512i sum[R][B * kPanelVectors];
    for (int r = 0; r < R; r++)
      for (int j = 0; j < B * kPanelVectors; j++) sum[r][j] = _mm512_setzero_si512();
    for (int k = 0; k < inputs; k += 4) {
      __m512i four[R];
      for (int r = 0; r < R; r++)
        four[r] = _mm512_set1_epi32(load<int32_t>(rows + static_cast<size_t>(r) * inputs + k));
      for (int b = 0; b < B; b++) {
        for (int j = 0; j < kPanelVectors; j++) {
          const int8_t* from = weights + b * panel_size(inputs) + static_cast<size_t>(k) * kPanel + j * kLanes * 4;
          const __m512i w = _mm512_loadu_si512(from);
          for (int r = 0; r < R; r++) {
            __m512i& s = sum[r][b * kPanelVectors + j];
            s = _mm512_dpbusd_epi32(s, four[r], w);
          }
        }
      }
    }
#elif defined(__SSE2__)
    Wide sum[R][B * kPanelVectors] = {};
    for (int k = 0; k < inputs; k += 2) {
      for (int b = 0; b < B; b++) {
        for (int j = 0; j < kPanelVectors; j++) {
          const Wide w = widened(weights + b * panel_size(inputs) + static_cast<size_t>(k) * kPanel + j * kLanes * 2);
          for (int r = 0; r < R; r++) {
            const int32_t two = load<int32_t>(rows + static_cast<size_t>(r) * inputs + k);
            sum[r][b * kPanelVectors + j] = plus_products(sum[r][b * kPanelVectors + j], two, w);
          }
        }
      }
    }
#else
    ints sum[R][B * kPanelVectors] = {};
    for (int k = 0; k < inputs; k += 2) {
      for (int b = 0; b < B; b++) {
        for (int r = 0; r < R; r++) {
          const int32_t even = rows[static_cast<size_t>(r) * inputs + k];
          const int32_t odd = rows[static_cast<size_t>(r) * inputs + k + 1];
          const int8_t* from = weights + b * panel_size(inputs) + static_cast<size_t>(k) * kPanel;
          int32_t* to = reinterpret_cast<int32_t*>(sum[r] + b * kPanelVectors);
          for (int n = 0; n < kPanel; n++) to[n] += even * from[2 * n] + odd * from[2 * n + 1];
        }
      }
    }
#endif
    for (int r = 0; r < R; r++)
      for (int j = 0; j < B * kPanelVectors; j++) finish(target, row + r, panel * kPanel + j * kLanes, (ints)sum[r][j]);
  }
};

// `n` rows against B panels.
template <int B, class Product>
inline void rows_of(const Product& product, int n, int row, int panel, const Target& target) {
  switch (n) {
    case 1: product.template tile<1, B>(row, panel, target); break;
    case 2: product.template tile<2, B>(row, panel, target); break;
    case 3: product.template tile<3, B>(row, panel, target); break;
    case 4: product.template tile<4, 1>(row, panel, target); break;
    case 5: product.template tile<5, 1>(row, panel, target); break;
    case 6: product.template tile<6, 1>(row, panel, target); break;
  }
}

template <class Product>
void multiply(const Product& product, int n_rows, const Target& target, int threads) {
  const int panels = rounded_up(target.outputs, kPanel) / kPanel;
  const bool worth = threads > 1 && static_cast<size_t>(target.outputs) * product.inputs > 65536;
  if (n_rows <= 3) {
    // Few rows have few sums: several panels at once keep the multipliers busy.
    const int together = n_rows == 1 ? 4 : 2;
    const int groups = (panels + together - 1) / together;
#pragma omp parallel for schedule(static) num_threads(threads) if (worth)
    for (int group = 0; group < groups; group++) {
      const int first = group * together;
      if (first + together <= panels) {
        if (together == 4)
          product.template tile<1, 4>(0, first, target);
        else
          rows_of<2>(product, n_rows, 0, first, target);
      } else {
        for (int panel = first; panel < panels; panel++) rows_of<1>(product, n_rows, 0, panel, target);
      }
    }
    return;
  }
  // Tiles of nearly equal height: 7 rows as 4 and 3, not 6 and 1.
  const int tiles = (n_rows + kMaxRows - 1) / kMaxRows;
#pragma omp parallel for schedule(static) num_threads(threads) if (worth)
  for (int panel = 0; panel < panels; panel++) {
    for (int tile = 0; tile < tiles; tile++) {
      const int from = static_cast<int>(static_cast<int64_t>(n_rows) * tile / tiles);
      const int to = static_cast<int>(static_cast<int64_t>(n_rows) * (tile + 1) / tiles);
      rows_of<1>(product, to - from, from, panel, target);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The three ways of computing. `Activation` is what products read, `Cache` what keys and values are kept in, `Query`
// what attention multiplies keys with.

struct Float32Mode {
  typedef float Activation;
  typedef float Cache;
  typedef float Query;
};

struct Bf16Mode {
  typedef Bf16Product::Activation Activation;
  typedef bf16 Cache;
  typedef Bf16Product::Activation Query;
};

struct Int8Mode {
  typedef float Activation;
  typedef bf16 Cache;
  typedef Bf16Product::Activation Query;
};

void quantize(const float* x, int n_rows, int inputs, Int8Product::Quantized* quantized, float* scales) {
  for (int row = 0; row < n_rows; row++) {
    const float* from = x + static_cast<size_t>(row) * inputs;
    Int8Product::Quantized* to = quantized + static_cast<size_t>(row) * inputs;
    float largest[16] = {};
    for (int k = 0; k < inputs; k++) {
      const float size = std::fabs(from[k]);
      largest[k % 16] = size > largest[k % 16] ? size : largest[k % 16];
    }
    const float most = std::max(*std::max_element(largest, largest + 16), 1e-20f);
    const float inverse = 127.0f / most;
    scales[row] = most / 127.0f;
    for (int k = 0; k < inputs; k++)
      to[k] = static_cast<Int8Product::Quantized>(nearest(from[k] * inverse) + Int8Product::kOffset);
  }
}

struct Scratch {
  Int8Product::Quantized* quantized;
  float* row_scales;
};

void linear(Float32Mode, const Linear& with, const float* x, int n_rows, float* out, const Scratch&, int threads) {
  const Float32Product product = {x, static_cast<const float*>(with.packed), with.inputs};
  multiply(product, n_rows, {out, with.outputs, with.bias}, threads);
}

void linear(Bf16Mode, const Linear& with, const Bf16Mode::Activation* x, int n_rows, float* out, const Scratch&,
            int threads) {
  const Bf16Product product = {x, static_cast<const bf16*>(with.packed), with.inputs};
  multiply(product, n_rows, {out, with.outputs, with.bias}, threads);
}

void linear(Int8Mode, const Linear& with, const float* x, int n_rows, float* out, const Scratch& scratch, int threads) {
  quantize(x, n_rows, with.inputs, scratch.quantized, scratch.row_scales);
  const Int8Product product = {scratch.quantized,  static_cast<const int8_t*>(with.packed), with.inputs,
                               scratch.row_scales, with.scales,                             with.sums};
  multiply(product, n_rows, {out, with.outputs, with.bias}, threads);
}

// ---------------------------------------------------------------------------------------------------------------------
// What happens between the products.

// Sixteen running sums, added up in one order: what the compiler may not do to a single sum by itself.
inline float sum_of_squares(const float* x, int n) {
  float lanes[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) lanes[j] += x[i + j] * x[i + j];
  for (; i < n; i++) lanes[i % 16] += x[i] * x[i];
  float sum = 0;
  for (int j = 0; j < 16; j++) sum += lanes[j];
  return sum;
}

// x += add (when there is any); out = x / rms(x) * weight.
template <class A>
void add_and_norm(const float* add, float* x, const float* weight, A* out, int n_rows, int hidden, float epsilon,
                  int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && n_rows * hidden > 32768)
  for (int row = 0; row < n_rows; row++) {
    float* at = x + static_cast<size_t>(row) * hidden;
    A* to = out + static_cast<size_t>(row) * hidden;
    if (add) {
      const float* more = add + static_cast<size_t>(row) * hidden;
      for (int i = 0; i < hidden; i++) at[i] += more[i];
    }
    const float inverse = 1.0f / std::sqrt(sum_of_squares(at, hidden) / hidden + epsilon);
    for (int i = 0; i < hidden; i++) to[i] = narrow<A>(at[i] * inverse * weight[i]);
  }
}

// gate_up is [rows][2 * inner]; out = silu(gate) * up.
template <class A>
void gated(const float* gate_up, A* out, int n_rows, int inner, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && n_rows * inner > 32768)
  for (int row = 0; row < n_rows; row++) {
    const float* gate = gate_up + static_cast<size_t>(row) * 2 * inner;
    const float* up = gate + inner;
    A* to = out + static_cast<size_t>(row) * inner;
    for (int i = 0; i < inner; i++) to[i] = narrow<A>(gate[i] / (1.0f + exponential(-gate[i])) * up[i]);
  }
}

// One head, in place: RMSNorm where the model has it, then rotation. The halves of a head are the pairs, as in the
// checkpoints of Hugging Face.
inline void norm_and_rotate(float* head, int dim, const float* norm, const float* rope, float epsilon) {
  if (norm) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(head, dim) / dim + epsilon);
    for (int d = 0; d < dim; d++) head[d] = head[d] * inverse * norm[d];
  }
  const int half = dim / 2;
  const float *cosine = rope, *sine = rope + half;
  for (int d = 0; d < half; d++) {
    const float a = head[d], b = head[d + half];
    head[d] = a * cosine[d] - b * sine[d];
    head[d + half] = b * cosine[d] + a * sine[d];
  }
}

// Where dimension `d` of the token in place `at` of a block lies in the block's keys.
inline size_t key_index(const float*, int d, int at) { return static_cast<size_t>(d) * kBlock + at; }

inline size_t key_index(const bf16*, int d, int at) { return (static_cast<size_t>(d / 2) * kBlock + at) * 2 + d % 2; }

// Rotates queries and keys of qkv [tokens][(heads + 2 kv heads) * head_dim] and puts keys and values into the cache.
template <class Mode>
void rotate_and_store(const Model& model, const Layer& layer, const Step& step, float* qkv,
                      typename Mode::Query* queries, typename Mode::Cache* keys, typename Mode::Cache* values) {
  typedef typename Mode::Cache Cache;
  const int dim = model.head_dim, padded = rounded_up(dim, 16);
  const int width = (model.heads + 2 * model.kv_heads) * dim;
#pragma omp parallel for num_threads(model.threads) if (model.threads > 1 && step.tokens * width > 32768)
  for (int t = 0; t < step.tokens; t++) {
    float* row = qkv + static_cast<size_t>(t) * width;
    const int position = step.positions[t];
    const float* rope = model.rope + static_cast<size_t>(position) * dim;
    typename Mode::Query* query = queries + static_cast<size_t>(t) * model.heads * dim;
    for (int h = 0; h < model.heads; h++) {
      norm_and_rotate(row + h * dim, dim, layer.query_norm, rope, model.epsilon);
      for (int d = 0; d < dim; d++) query[h * dim + d] = narrow<typename Mode::Query>(row[h * dim + d]);
    }
    const int32_t block = step.tables[static_cast<size_t>(step.rows[t]) * step.table_width + position / kBlock];
    const int at = position % kBlock;
    for (int h = 0; h < model.kv_heads; h++) {
      const size_t head = static_cast<size_t>(block) * model.kv_heads + h;
      float* key = row + (model.heads + h) * dim;
      norm_and_rotate(key, dim, layer.key_norm, rope, model.epsilon);
      Cache* to = keys + head * kBlock * dim;
      for (int d = 0; d < dim; d++) to[key_index(to, d, at)] = narrow<Cache>(key[d]);
      const float* value = row + (model.heads + model.kv_heads + h) * dim;
      Cache* slot = values + (head * kBlock + at) * padded;
      for (int d = 0; d < dim; d++) slot[d] = narrow<Cache>(value[d]);
    }
  }
}

// Queries that share a kv head, of one token or of several that follow each other in one sequence.
template <class Query, class A>
struct Together {
  const Query* query[kMaxQueries];
  A* out[kMaxQueries];
  int context[kMaxQueries];  // tokens that each may see
  int longest;               // of the contexts
  int n;
};

// Scores of one block's sixteen tokens; those of one query are `stride` apart from the next.
template <int G>
inline void score_block(const float* const* queries, int dim, const float* keys, float* scores, int stride) {
  floats sum[G][kParts] = {};
  for (int d = 0; d < dim; d++) {
    for (int p = 0; p < kParts; p++) {
      const floats key = load<floats>(keys + static_cast<size_t>(d) * kBlock + p * kLanes);
      for (int g = 0; g < G; g++) sum[g][p] += queries[g][d] * key;
    }
  }
  for (int g = 0; g < G; g++)
    for (int p = 0; p < kParts; p++) store(scores + g * stride + p * kLanes, sum[g][p]);
}

#if defined(PENSTOCK_AVX512)
template <int G>
inline void score_block(const bf16* const* queries, int dim, const bf16* keys, float* scores, int stride) {
  // Two sums each, because one would wait for its own last addition.
  __m512 even[G], odd[G];
  for (int g = 0; g < G; g++) even[g] = odd[g] = _mm512_setzero_ps();
  int d = 0;
  for (; d + 4 <= dim; d += 4) {
    const __m512bh first = (__m512bh)_mm512_loadu_si512(keys + static_cast<size_t>(d) * kBlock);
    const __m512bh second = (__m512bh)_mm512_loadu_si512(keys + static_cast<size_t>(d + 2) * kBlock);
    for (int g = 0; g < G; g++) {
      even[g] = _mm512_dpbf16_ps(even[g], (__m512bh)_mm512_set1_epi32(load<int32_t>(queries[g] + d)), first);
      odd[g] = _mm512_dpbf16_ps(odd[g], (__m512bh)_mm512_set1_epi32(load<int32_t>(queries[g] + d + 2)), second);
    }
  }
  for (; d < dim; d += 2) {
    const __m512bh pair = (__m512bh)_mm512_loadu_si512(keys + static_cast<size_t>(d) * kBlock);
    for (int g = 0; g < G; g++)
      even[g] = _mm512_dpbf16_ps(even[g], (__m512bh)_mm512_set1_epi32(load<int32_t>(queries[g] + d)), pair);
  }
  for (int g = 0; g < G; g++) store(scores + g * stride, _mm512_add_ps(even[g], odd[g]));
}
#else
template <int G>
inline void score_block(const float* const* queries, int dim, const bf16* keys, float* scores, int stride) {
  floats sum[G][kParts] = {};
  for (int d = 0; d < dim; d += 2) {
    for (int p = 0; p < kParts; p++) {
      const words both = load<words>(keys + static_cast<size_t>(d) * kBlock + p * kLanes * 2);
      const floats even = reinterpret_cast<floats>(both << 16);
      const floats odd = reinterpret_cast<floats>(both & 0xffff0000u);
      for (int g = 0; g < G; g++) {
        sum[g][p] += queries[g][d] * even;
        sum[g][p] += queries[g][d + 1] * odd;
      }
    }
  }
  for (int g = 0; g < G; g++)
    for (int p = 0; p < kParts; p++) store(scores + g * stride + p * kLanes, sum[g][p]);
}
#endif

// Scores become weights that sum to 1; those from `context` on, up to whole blocks of `longest`, become 0.
inline void softmax(float* scores, int context, int longest, float scale) {
  const int padded = rounded_up(context, kBlock);
  for (int n = context; n < padded; n++) scores[n] = -FLT_MAX;
  float lanes[16];
  for (int j = 0; j < 16; j++) lanes[j] = -FLT_MAX;
  for (int n = 0; n < padded; n += 16)
    for (int j = 0; j < 16; j++) lanes[j] = scores[n + j] > lanes[j] ? scores[n + j] : lanes[j];
  const float most = *std::max_element(lanes, lanes + 16);
  for (int j = 0; j < 16; j++) lanes[j] = 0;
  for (int n = 0; n < padded; n += 16) {
    for (int j = 0; j < 16; j++) {
      const float weight = exponential((scores[n + j] - most) * scale);
      scores[n + j] = weight;
      lanes[j] += n + j < context ? weight : 0.0f;
    }
  }
  float sum = 0;
  for (int j = 0; j < 16; j++) sum += lanes[j];
  const float inverse = 1.0f / sum;
  for (int n = 0; n < context; n++) scores[n] *= inverse;
  for (int n = context; n < rounded_up(longest, kBlock); n++) scores[n] = 0.0f;
}

// Weighted sums of values, for S registers of dimensions beginning with `from`. A shorter context only adds zeros to
// its sum, for tokens of its own sequence, so it does not matter which queries are together.
template <int G, int S, class Cache, class Query, class A>
inline void mix_slice(const Together<Query, A>& together, const float* weights, int stride, const Cache* values,
                      const int32_t* table, size_t block_stride, int dim, int from) {
  const int padded = rounded_up(dim, kBlock);
  floats sum[G][S] = {};
  for (int first = 0; first < together.longest; first += kBlock) {
    const Cache* block = values + table[first / kBlock] * block_stride + from;
    const int n = std::min(kBlock, together.longest - first);
    for (int i = 0; i < n; i++) {
      for (int s = 0; s < S; s++) {
        const floats value = load_wide(block + static_cast<size_t>(i) * padded + s * kLanes);
        for (int g = 0; g < G; g++) sum[g][s] += weights[g * stride + first + i] * value;
      }
    }
  }
  for (int g = 0; g < G; g++) {
    float slice[S * kLanes];
    for (int s = 0; s < S; s++) store(slice + s * kLanes, sum[g][s]);
    const int n = std::min(S * kLanes, dim - from);
    for (int d = 0; d < n; d++) together.out[g][from + d] = narrow<A>(slice[d]);
  }
}

template <int G, class Cache, class Query, class A>
void attend(const Together<Query, A>& together, int dim, const Cache* keys, const Cache* values, const int32_t* table,
            size_t key_stride, size_t value_stride, float scale, float* scores, int stride) {
  for (int first = 0; first < together.longest; first += kBlock)
    score_block<G>(together.query, dim, keys + table[first / kBlock] * key_stride, scores + first, stride);
  for (int g = 0; g < G; g++) softmax(scores + g * stride, together.context[g], together.longest, scale);
  // As many sums as the registers hold, in slices that whole heads of 64 dimensions divide into.
  constexpr int kWide = kLanes == 16 ? (G <= 6 ? 4 : 2) : kLanes == 8 && G <= 2 ? 4 : kParts;
  int from = 0;
  for (; from + kWide * kLanes <= dim; from += kWide * kLanes)
    mix_slice<G, kWide>(together, scores, stride, values, table, value_stride, dim, from);
  for (; from < dim; from += kBlock)
    mix_slice<G, kParts>(together, scores, stride, values, table, value_stride, dim, from);
}

// Tokens `first` to `last` of one sequence; each kv head serves `group` heads.
template <class Mode>
void attend_run(const Model& model, const Step& step, int first, int last, int kv_head,
                const typename Mode::Query* queries, const typename Mode::Cache* keys,
                const typename Mode::Cache* values, float* scores, typename Mode::Activation* out) {
  const int dim = model.head_dim, group = model.heads / model.kv_heads;
  const int stride = rounded_up(step.longest, kBlock);
  const size_t key_stride = static_cast<size_t>(model.kv_heads) * kBlock * dim;
  const size_t value_stride = static_cast<size_t>(model.kv_heads) * kBlock * rounded_up(dim, kBlock);
  const auto* key = keys + static_cast<size_t>(kv_head) * kBlock * dim;
  const auto* value = values + static_cast<size_t>(kv_head) * kBlock * rounded_up(dim, kBlock);
  const int32_t* table = step.tables + static_cast<size_t>(step.rows[first]) * step.table_width;
  const int total = (last - first) * group;
  for (int done = 0; done < total; done += kMaxQueries) {
    Together<typename Mode::Query, typename Mode::Activation> together;
    together.n = std::min(kMaxQueries, total - done);
    together.longest = 0;
    for (int g = 0; g < together.n; g++) {
      const int t = first + (done + g) / group;
      const size_t head = (static_cast<size_t>(t) * model.heads + kv_head * group + (done + g) % group) * dim;
      together.query[g] = queries + head;
      together.out[g] = out + head;
      together.context[g] = step.positions[t] + 1;
      together.longest = std::max(together.longest, together.context[g]);
    }
#define PENSTOCK_ATTEND(G) \
  case G: attend<G>(together, dim, key, value, table, key_stride, value_stride, model.scale, scores, stride); break;
    switch (together.n) {
      PENSTOCK_ATTEND(1)
      PENSTOCK_ATTEND(2)
      PENSTOCK_ATTEND(3)
      PENSTOCK_ATTEND(4)
#if defined(PENSTOCK_AVX512)
      PENSTOCK_ATTEND(5)
      PENSTOCK_ATTEND(6)
      PENSTOCK_ATTEND(7)
      PENSTOCK_ATTEND(8)
#endif
    }
#undef PENSTOCK_ATTEND
  }
}

// `runs` has room for a number per token.
template <class Mode>
void attention(const Model& model, const Step& step, const typename Mode::Query* queries,
               const typename Mode::Cache* keys, const typename Mode::Cache* values, float* scores, int32_t* runs,
               typename Mode::Activation* out) {
  // Several tokens of one prompt read the same keys; they do it together, as far as queries fit.
  const int most = std::max(1, kMaxQueries / (model.heads / model.kv_heads));
  const int stride = rounded_up(step.longest, kBlock);
  int n_runs = 0;
  for (int t = 0; t < step.tokens; t++) {
    const bool goes_on = n_runs && step.rows[t] == step.rows[t - 1] && t - runs[n_runs - 1] < most;
    if (!goes_on) runs[n_runs++] = t;
  }
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(model.threads) if (model.threads > 1)
  for (int run = 0; run < n_runs; run++) {
    for (int h = 0; h < model.kv_heads; h++) {
#if defined(_OPENMP)
      float* mine = scores + static_cast<size_t>(omp_get_thread_num()) * kMaxQueries * stride;
#else
      float* mine = scores;
#endif
      const int last = run + 1 < n_runs ? runs[run + 1] : step.tokens;
      attend_run<Mode>(model, step, runs[run], last, h, queries, keys, values, mine, out);
    }
  }
}

// The likeliest token, the first of equals; -1 when any logit is not a finite number.
int32_t best_of(const float* logits, int n) {
  uint32_t broken = 0;
  for (int i = 0; i < n; i++) {
    const uint32_t bits = load<uint32_t>(logits + i);
    broken |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  if (broken) return -1;
  float best = -FLT_MAX;
  int at = 0;
  for (int first = 0; first < n; first += 64) {
    const int end = std::min(n, first + 64);
    float most = -FLT_MAX;
    for (int i = first; i < end; i++) most = logits[i] > most ? logits[i] : most;
    if (most > best) {
      best = most;
      at = static_cast<int>(std::find(logits + first, logits + end, most) - logits);
    }
  }
  return at;
}

// ---------------------------------------------------------------------------------------------------------------------

// Hands out aligned parts of the workspace; with no memory it only counts.
struct Carver {
  char* base;
  size_t used;

  template <class T>
  T* take(size_t n) {
    T* part = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += aligned(n * sizeof(T));
    return part;
  }
};

template <class Mode>
struct Workspace {
  typedef typename Mode::Activation Activation;
  float *x, *added, *qkv, *gate_up, *scores;
  int32_t* runs;
  typename Mode::Query* queries;
  Activation *normed, *attended, *inner;
  Scratch scratch;
  size_t bytes;

  Workspace(const Model& model, int tokens, int longest, void* memory) {
    Carver carver = {static_cast<char*>(memory), 0};
    const size_t n = tokens, wide = static_cast<size_t>(model.heads) * model.head_dim;
    const size_t widest = std::max({static_cast<size_t>(model.hidden), static_cast<size_t>(model.inner), wide});
    x = carver.take<float>(n * model.hidden);
    added = carver.take<float>(n * model.hidden);
    qkv = carver.take<float>(n * (wide + 2 * static_cast<size_t>(model.kv_heads) * model.head_dim));
    gate_up = carver.take<float>(n * 2 * model.inner);
    scores = carver.take<float>(static_cast<size_t>(model.threads) * kMaxQueries * rounded_up(longest, kBlock));
    runs = carver.take<int32_t>(n);
    queries = carver.take<typename Mode::Query>(n * wide);
    normed = carver.take<Activation>(n * model.hidden);
    attended = carver.take<Activation>(n * wide);
    inner = carver.take<Activation>(n * model.inner);
    scratch.quantized = carver.take<Int8Product::Quantized>(model.kind == kInt8 ? n * widest : 0);
    scratch.row_scales = carver.take<float>(n);
    bytes = carver.used;
  }
};

// Keeps only the rows of sampled tokens, in order; they are ascending, so rows never overwrite ones still needed.
template <class T>
void keep_sampled(T* rows, int width, const Step& step) {
  for (int i = 0; i < step.samples; i++) {
    const T* from = rows + static_cast<size_t>(step.sampled[i]) * width;
    memmove(rows + static_cast<size_t>(i) * width, from, width * sizeof(T));
  }
}

template <class Mode>
void compute(const Model& model, const Step& step) {
  typedef typename Mode::Cache Cache;
  Workspace<Mode> at(model, step.tokens, step.longest, step.workspace);
  const int hidden = model.hidden, threads = model.threads;
  const Cache* embedding = static_cast<const Cache*>(model.embedding);
  for (int t = 0; t < step.tokens; t++) {
    const Cache* from = embedding + static_cast<size_t>(step.ids[t]) * hidden;
    float* to = at.x + static_cast<size_t>(t) * hidden;
    for (int i = 0; i < hidden; i++) to[i] = widen(from[i]);
  }
  const float* add = nullptr;
  int n = step.tokens;
  for (int l = 0; l < model.layers; l++) {
    const Layer& layer = model.layer[l];
    Cache* keys = static_cast<Cache*>(model.keys) + l * model.key_layer;
    Cache* values = static_cast<Cache*>(model.values) + l * model.value_layer;
    add_and_norm(add, at.x, layer.input_norm, at.normed, n, hidden, model.epsilon, threads);
    linear(Mode(), layer.qkv, at.normed, n, at.qkv, at.scratch, threads);
    rotate_and_store<Mode>(model, layer, step, at.qkv, at.queries, keys, values);
    const bool last = l == model.layers - 1;
    if (last && step.samples == 0) return;  // only keys and values were wanted
    attention<Mode>(model, step, at.queries, keys, values, at.scores, at.runs, at.attended);
    if (last) {
      // Nobody reads what the other tokens would become after this.
      keep_sampled(at.attended, model.heads * model.head_dim, step);
      keep_sampled(at.x, hidden, step);
      n = step.samples;
    }
    linear(Mode(), layer.output, at.attended, n, at.added, at.scratch, threads);
    add_and_norm(at.added, at.x, layer.post_norm, at.normed, n, hidden, model.epsilon, threads);
    linear(Mode(), layer.gate_up, at.normed, n, at.gate_up, at.scratch, threads);
    gated(at.gate_up, at.inner, n, model.inner, threads);
    linear(Mode(), layer.down, at.inner, n, at.added, at.scratch, threads);
    add = at.added;
  }
  add_and_norm(add, at.x, model.final_norm, at.normed, n, hidden, model.epsilon, threads);
  linear(Mode(), model.head, at.normed, n, step.logits, at.scratch, threads);
  for (int i = 0; i < n; i++) {
    const float* logits = step.logits + static_cast<size_t>(i) * model.vocabulary;
    step.best[i] = best_of(logits, model.vocabulary);
  }
}

// Where weight [n][k] lies in a packed matrix whose groups of `group` inputs are side by side.
inline size_t packed_index(int n, int k, int inputs, int group) {
  const size_t panel = static_cast<size_t>(n / kPanel) * inputs * kPanel;
  return panel + (static_cast<size_t>(k / group) * kPanel + n % kPanel) * group + k % group;
}

}  // namespace

extern "C" {

int penstock_version() { return kVersion; }

size_t penstock_packed_bytes(int kind, int outputs, int inputs) {
  const size_t numbers = static_cast<size_t>(rounded_up(outputs, kPanel)) * inputs;
  return numbers * (kind == kFloat32 ? sizeof(float) : kind == kBf16 ? sizeof(bf16) : sizeof(int8_t));
}

// `weights` is [outputs][inputs]; `packed` is zeroed and has penstock_packed_bytes; for int8, `scales` and `sums` are
// filled.
void penstock_pack(int kind, const float* weights, int outputs, int inputs, void* packed, float* scales,
                   int32_t* sums) {
  for (int n = 0; n < outputs; n++) {
    const float* row = weights + static_cast<size_t>(n) * inputs;
    if (kind == kFloat32) {
      for (int k = 0; k < inputs; k++) static_cast<float*>(packed)[packed_index(n, k, inputs, 1)] = row[k];
    } else if (kind == kBf16) {
      for (int k = 0; k < inputs; k++)
        static_cast<bf16*>(packed)[packed_index(n, k, inputs, 2)] = narrow<bf16>(row[k]);
    } else {
      float most = 1e-20f;
      for (int k = 0; k < inputs; k++) most = std::max(most, std::fabs(row[k]));
      int32_t sum = 0;
      for (int k = 0; k < inputs; k++) {
        const int32_t value = nearest(row[k] * (127.0f / most));
        sum += value;
        static_cast<int8_t*>(packed)[packed_index(n, k, inputs, Int8Product::kGroup)] = static_cast<int8_t>(value);
      }
      scales[n] = most / 127.0f;
      sums[n] = sum;
    }
  }
}

void penstock_narrow(const float* from, void* to, size_t n) {
  for (size_t i = 0; i < n; i++) static_cast<bf16*>(to)[i] = narrow<bf16>(from[i]);
}

size_t penstock_workspace_bytes(const Model* model, int tokens, int longest) {
  switch (model->kind) {
    case kFloat32: return Workspace<Float32Mode>(*model, tokens, longest, nullptr).bytes;
    case kBf16: return Workspace<Bf16Mode>(*model, tokens, longest, nullptr).bytes;
    default: return Workspace<Int8Mode>(*model, tokens, longest, nullptr).bytes;
  }
}

void penstock_compute(const Model* model, const Step* step) {
  switch (model->kind) {
    case kFloat32: compute<Float32Mode>(*model, *step); break;
    case kBf16: compute<Bf16Mode>(*model, *step); break;
    default: compute<Int8Mode>(*model, *step); break;
  }
}

}  // extern "C"
