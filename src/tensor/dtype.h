#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kvasir {

/// Element formats of tensors in GGUF files, with the numbers of the `ggml_type` field there.
/// Source: the GGUF specification, section "Tensor information".
enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kI8 = 24,
  kI32 = 26,
  kBF16 = 30,
};

/// How a format stores its elements: blocks of `block_elements` consecutive elements of a row in
/// `block_bytes` bytes.
struct DTypeInfo {
  DType dtype;
  std::string_view name;    ///< as people write it: "Q4_K"
  uint32_t block_elements;  ///< 1 for plain element types
  uint32_t block_bytes;
};

/// Facts of a format, or nullopt when the number is none that Kvasir knows.
std::optional<DTypeInfo> FindDType(uint32_t ggml_type);
/// Facts of a known format.
const DTypeInfo& InfoOf(DType dtype);
std::string_view NameOf(DType dtype);

/// A two-dimensional row-major matrix in foreign memory (usually a mapped file): `rows` rows of
/// `cols` elements, each row `row_bytes` long and packed in blocks along the columns. GGUF writes
/// its dimensions in the other order: ne[0] = cols, ne[1] = rows. Vectors have rows = 1.
struct TensorView {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const uint8_t* data = nullptr;

  size_t row_bytes() const {
    const DTypeInfo& info = InfoOf(dtype);
    return static_cast<size_t>(cols) / info.block_elements * info.block_bytes;
  }
  size_t bytes() const { return static_cast<size_t>(rows) * row_bytes(); }
  const uint8_t* row(int64_t r) const { return data + static_cast<size_t>(r) * row_bytes(); }
};

}  // namespace kvasir
