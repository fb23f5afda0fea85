#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "tensor/dtype.h"

namespace kvasir {

/// A metadata value of a GGUF file. Numbers are widened to 64 bits; arrays are homogeneous.
/// Arrays of strings are kept as views into the mapped file.
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string_view,
                               std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>,
                               std::vector<bool>, std::vector<std::string_view>>;

/// A tensor of a GGUF file: up to four dimensions, ne[0] the fastest.
struct GgufTensor {
  std::string_view name;
  DType dtype = DType::kF32;
  int dims = 0;
  int64_t ne[4] = {1, 1, 1, 1};
  const uint8_t* data = nullptr;
  size_t bytes = 0;
  int file = 0;  ///< which part of a split model
  /// As a matrix: cols = ne[0], rows = the product of the others.
  TensorView view() const { return {dtype, ne[1] * ne[2] * ne[3], ne[0], data}; }
};

/// A GGUF model, version 2 or 3, of one file or of split parts (name-00001-of-00003.gguf: any
/// part's path opens all), mapped into memory. Everything is checked before it is used: magic,
/// version, counts against the file's size, types, alignment, each string and array, each tensor's
/// dimensions, block multiples, offset and size, duplicates, overlaps. No allocation is larger than
/// the file justifies. Errors are one line with file, field, value and limit.
class GgufFile {
 public:
  static Result<GgufFile> Open(const std::string& path);

  const std::map<std::string_view, GgufValue>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// nullptr if there is none of that name.
  const GgufTensor* FindTensor(std::string_view name) const;
  const GgufValue* FindValue(std::string_view key) const;
  const std::string& path() const { return files_.front().path(); }
  const std::vector<MappedFile>& files() const { return files_; }
  uint32_t version() const { return version_; }
  size_t total_bytes() const;

  /// Typed access: nullopt when absent; an Error that names the field when it has another type or
  /// is out of [min, max].
  Result<std::optional<int64_t>> Int(std::string_view key, int64_t min, int64_t max) const;
  Result<std::optional<double>> Float(std::string_view key) const;  ///< finite
  Result<std::optional<bool>> Bool(std::string_view key) const;
  Result<std::optional<std::string_view>> String(std::string_view key) const;

 private:
  /// Takes over what part `index` holds, after checking that it belongs to the others.
  Status AddPart(const MappedFile& file, size_t index,
                 std::map<std::string_view, GgufValue> metadata,
                 const std::vector<GgufTensor>& tensors);

  std::vector<MappedFile> files_;
  uint32_t version_ = 0;
  std::map<std::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> by_name_;
};

}  // namespace kvasir
