#include "tensor/dtype.h"

#include "base/check.h"

namespace kvasir {
namespace {

constexpr DTypeInfo kInfos[] = {
    {DType::kF32, "F32", 1, 4},           {DType::kF16, "F16", 1, 2},
    {DType::kBF16, "BF16", 1, 2},         {DType::kI8, "I8", 1, 1},
    {DType::kI32, "I32", 1, 4},           {DType::kQ4_0, "Q4_0", 32, 18},
    {DType::kQ4_1, "Q4_1", 32, 20},       {DType::kQ5_0, "Q5_0", 32, 22},
    {DType::kQ5_1, "Q5_1", 32, 24},       {DType::kQ8_0, "Q8_0", 32, 34},
    {DType::kQ2_K, "Q2_K", 256, 84},      {DType::kQ3_K, "Q3_K", 256, 110},
    {DType::kQ4_K, "Q4_K", 256, 144},     {DType::kQ5_K, "Q5_K", 256, 176},
    {DType::kQ6_K, "Q6_K", 256, 210},     {DType::kIQ4_NL, "IQ4_NL", 32, 18},
    {DType::kIQ4_XS, "IQ4_XS", 256, 136},
};

}  // namespace

std::optional<DTypeInfo> FindDType(uint32_t ggml_type) {
  for (const DTypeInfo& info : kInfos) {
    if (static_cast<uint32_t>(info.dtype) == ggml_type) return info;
  }
  return std::nullopt;
}

const DTypeInfo& InfoOf(DType dtype) {
  for (const DTypeInfo& info : kInfos) {
    if (info.dtype == dtype) return info;
  }
  CheckFailed(__FILE__, __LINE__, "unknown DType");
}

std::string_view NameOf(DType dtype) { return InfoOf(dtype).name; }

}  // namespace kvasir
