#include "model/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "base/checked.h"

namespace kvasir {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF", little endian
constexpr uint32_t kMagicSwapped = 0x47475546;
constexpr uint64_t kMaxKeyBytes = 65535;        // the specification's own limit
constexpr uint64_t kMaxTensorNameBytes = 1024;  // the specification says 64; some writers exceed it
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr uint32_t kMaxParts = 1000;
// Arrays may take the file's size in memory and this much more.
constexpr size_t kArraySlackBytes = size_t{16} << 20;
// The fewest bytes that one entry takes in the file, so that counts are bounded by its size.
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;  // key of one byte, type, a bool
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
constexpr size_t kScalarBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/// Reads a file from front to back; every read is checked against what is left.
class Reader {
 public:
  explicit Reader(const MappedFile& file) : file_(file), bytes_(file.bytes()) {}

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  template <typename T>
  Status Read(T* out, std::string_view field) {
    if (left() < sizeof(T)) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: {} at offset {}: the file ends after {} bytes, {} more are needed",
                       file_.path(), field, position_, bytes_.size(), sizeof(T) - left());
    }
    std::memcpy(out, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return {};
  }

  Status ReadString(std::string_view* out, std::string_view field, uint64_t limit) {
    uint64_t length = 0;
    KV_RETURN_IF_ERROR(Read(&length, field));
    if (length > limit || length > left()) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: {}: length {} at offset {} is above the limit of {}", file_.path(),
                       field, length, position_ - 8, std::min<uint64_t>(limit, left()));
    }
    *out = {reinterpret_cast<const char*>(bytes_.data() + position_), static_cast<size_t>(length)};
    position_ += length;
    return {};
  }

 private:
  const MappedFile& file_;
  std::span<const uint8_t> bytes_;
  size_t position_ = 0;
};

/// Names and values from a file, safe to print: one line of printable ASCII, bounded.
std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 80)) out += c >= 32 && c < 127 ? c : '?';
  if (text.size() > 80) out += "...";
  return out;
}

template <typename Wide, typename Narrow>
Status ReadWide(Reader& in, std::string_view field, Wide* out) {
  Narrow value{};
  KV_RETURN_IF_ERROR(in.Read(&value, field));
  *out = static_cast<Wide>(value);
  return {};
}

Status ReadUnsigned(Reader& in, uint32_t type, std::string_view field, uint64_t* out) {
  switch (type) {
    case kUint8:
      return ReadWide<uint64_t, uint8_t>(in, field, out);
    case kUint16:
      return ReadWide<uint64_t, uint16_t>(in, field, out);
    case kUint32:
      return ReadWide<uint64_t, uint32_t>(in, field, out);
    default:
      return in.Read(out, field);
  }
}

Status ReadSigned(Reader& in, uint32_t type, std::string_view field, int64_t* out) {
  switch (type) {
    case kInt8:
      return ReadWide<int64_t, int8_t>(in, field, out);
    case kInt16:
      return ReadWide<int64_t, int16_t>(in, field, out);
    case kInt32:
      return ReadWide<int64_t, int32_t>(in, field, out);
    default:
      return in.Read(out, field);
  }
}

Status ReadFloat(Reader& in, uint32_t type, std::string_view field, double* out) {
  if (type == kFloat32) return ReadWide<double, float>(in, field, out);
  return in.Read(out, field);
}

enum class Family { kUnsigned, kSigned, kFloat, kBool, kString, kArray, kUnknown };

Family FamilyOf(uint32_t type) {
  switch (type) {
    case kUint8:
    case kUint16:
    case kUint32:
    case kUint64:
      return Family::kUnsigned;
    case kInt8:
    case kInt16:
    case kInt32:
    case kInt64:
      return Family::kSigned;
    case kFloat32:
    case kFloat64:
      return Family::kFloat;
    case kBool:
      return Family::kBool;
    case kString:
      return Family::kString;
    case kArray:
      return Family::kArray;
    default:
      return Family::kUnknown;
  }
}

/// One value of a metadata entry; `path` and `key` are for messages.
class ValueReader {
 public:
  /// `budget`: bytes that the arrays of this file may still take in memory.
  ValueReader(Reader& in, const std::string& path, std::string_view key, size_t* budget)
      : in_(in), path_(path), key_(Printable(key)), budget_(budget) {}

  Result<GgufValue> Read() {
    uint32_t type = 0;
    KV_RETURN_IF_ERROR(in_.Read(&type, key_));
    if (FamilyOf(type) == Family::kArray) return ReadArray();
    return ReadScalar(type);
  }

 private:
  Error Bad(std::string_view what, uint64_t value, std::string_view allowed) const {
    return MakeError(ErrorCode::kInvalid, "{}: {}: {} {}; {}", path_, key_, what, value, allowed);
  }

  Status ReadBool(bool* out) {
    uint8_t byte = 0;
    KV_RETURN_IF_ERROR(in_.Read(&byte, key_));
    if (byte > 1) return Bad("boolean is", byte, "0 or 1 are allowed");
    *out = byte == 1;
    return {};
  }

  Result<GgufValue> ReadScalar(uint32_t type) {
    switch (FamilyOf(type)) {
      case Family::kUnsigned: {
        uint64_t v = 0;
        KV_RETURN_IF_ERROR(ReadUnsigned(in_, type, key_, &v));
        return GgufValue(v);
      }
      case Family::kSigned: {
        int64_t v = 0;
        KV_RETURN_IF_ERROR(ReadSigned(in_, type, key_, &v));
        return GgufValue(v);
      }
      case Family::kFloat: {
        double v = 0;
        KV_RETURN_IF_ERROR(ReadFloat(in_, type, key_, &v));
        return GgufValue(v);
      }
      case Family::kBool: {
        bool v = false;
        KV_RETURN_IF_ERROR(ReadBool(&v));
        return GgufValue(v);
      }
      case Family::kString: {
        std::string_view v;
        KV_RETURN_IF_ERROR(in_.ReadString(&v, key_, in_.left()));
        return GgufValue(v);
      }
      default:
        return Bad("value type is", type, "0 to 12 are known");
    }
  }

  /// `one` reads one element into its argument.
  template <typename T, typename ReadOne>
  Result<GgufValue> Elements(uint64_t count, ReadOne one) {
    std::vector<T> values;
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      T value{};
      KV_RETURN_IF_ERROR(one(&value));
      values.push_back(value);
    }
    return GgufValue(std::move(values));
  }

  Result<GgufValue> ReadArray() {
    uint32_t type = 0;
    uint64_t count = 0;
    KV_RETURN_IF_ERROR(in_.Read(&type, key_));
    KV_RETURN_IF_ERROR(in_.Read(&count, key_));
    const Family family = FamilyOf(type);
    if (family == Family::kArray) {
      return MakeError(ErrorCode::kUnsupported, "{}: {}: an array of arrays is not supported",
                       path_, key_);
    }
    if (family == Family::kUnknown) return Bad("array type is", type, "0 to 12 are known");
    const size_t each = family == Family::kString ? 8 : kScalarBytes[type];
    if (count > in_.left() / each) {
      return Bad("array length is", count,
                 fmt::format("the file has room for {}", in_.left() / each));
    }
    // Elements are widened; what a hostile file can make us allocate stays near its own size.
    const size_t widened = family == Family::kString ? sizeof(std::string_view) : sizeof(uint64_t);
    if (family != Family::kBool && count > *budget_ / widened) {
      return Bad("array length is", count,
                 fmt::format("at most {} is supported here", *budget_ / widened));
    }
    if (family != Family::kBool) *budget_ -= count * widened;
    switch (family) {
      case Family::kUnsigned:
        return Elements<uint64_t>(count,
                                  [&](uint64_t* v) { return ReadUnsigned(in_, type, key_, v); });
      case Family::kSigned:
        return Elements<int64_t>(count, [&](int64_t* v) { return ReadSigned(in_, type, key_, v); });
      case Family::kFloat:
        return Elements<double>(count, [&](double* v) { return ReadFloat(in_, type, key_, v); });
      case Family::kBool:
        return Elements<bool>(count, [&](bool* v) { return ReadBool(v); });
      default:
        return Elements<std::string_view>(
            count, [&](std::string_view* v) { return in_.ReadString(v, key_, in_.left()); });
    }
  }

  Reader& in_;
  const std::string& path_;
  std::string key_;
  size_t* budget_;
};

/// What one file of a model holds.
struct Part {
  uint32_t version = 0;
  std::vector<std::pair<std::string_view, GgufValue>> metadata;
  std::vector<GgufTensor> tensors;
};

Status ReadHeader(Reader& in, const MappedFile& file, uint32_t* version, uint64_t* tensors,
                  uint64_t* metadata) {
  uint32_t magic = 0;
  KV_RETURN_IF_ERROR(in.Read(&magic, "magic"));
  if (magic == kMagicSwapped) {
    return MakeError(ErrorCode::kUnsupported, "{}: a big-endian GGUF file is not supported",
                     file.path());
  }
  if (magic != kMagic) {
    return MakeError(ErrorCode::kInvalid,
                     "{}: not a GGUF file: magic is {:#010x} instead of {:#010x}", file.path(),
                     magic, kMagic);
  }
  KV_RETURN_IF_ERROR(in.Read(version, "version"));
  if (*version != 2 && *version != 3) {
    return MakeError(ErrorCode::kUnsupported, "{}: GGUF version {} is not supported; 2 and 3 are",
                     file.path(), *version);
  }
  KV_RETURN_IF_ERROR(in.Read(tensors, "tensor_count"));
  KV_RETURN_IF_ERROR(in.Read(metadata, "metadata_kv_count"));
  const auto bounded = [&](const char* field, uint64_t value, uint64_t limit) -> Status {
    if (value <= limit) return {};
    return MakeError(ErrorCode::kInvalid, "{}: {} is {}; a file of {} bytes has room for {}",
                     file.path(), field, value, file.bytes().size(), limit);
  };
  KV_RETURN_IF_ERROR(bounded("metadata_kv_count", *metadata, in.left() / kMinMetadataBytes));
  return bounded("tensor_count", *tensors, in.left() / kMinTensorBytes);
}

Status CheckTensorType(const MappedFile& file, const std::string& name, uint32_t type,
                       GgufTensor* t) {
  const auto info = FindDType(type);
  if (!info) {
    return MakeError(
        ErrorCode::kUnsupported,
        "{}: tensor {}: weight format number {} is not supported; F32, F16, BF16, Q4_0, "
        "Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL and IQ4_XS are",
        file.path(), name, type);
  }
  t->dtype = info->dtype;
  if (t->ne[0] % info->block_elements != 0) {
    return MakeError(ErrorCode::kInvalid,
                     "{}: tensor {}: row length {} is not a multiple of {}'s block of {}",
                     file.path(), name, t->ne[0], info->name, info->block_elements);
  }
  CheckedSize bytes = CheckedSize(t->ne[0] / info->block_elements) * info->block_bytes;
  for (int d = 1; d < 4; ++d) bytes *= static_cast<uint64_t>(t->ne[d]);
  if (!bytes.AtMost(file.bytes().size())) {
    return MakeError(
        ErrorCode::kInvalid,
        "{}: tensor {}: shape {} x {} x {} x {} of {} is larger than the file of {} bytes",
        file.path(), name, t->ne[0], t->ne[1], t->ne[2], t->ne[3], info->name, file.bytes().size());
  }
  t->bytes = *bytes.Get();
  return {};
}

Status ReadTensorInfo(Reader& in, const MappedFile& file, GgufTensor* t, uint64_t* offset) {
  KV_RETURN_IF_ERROR(in.ReadString(&t->name, "tensor name", kMaxTensorNameBytes));
  const std::string name = Printable(t->name);
  uint32_t dims = 0, type = 0;
  KV_RETURN_IF_ERROR(in.Read(&dims, name));
  if (dims < 1 || dims > 4) {
    return MakeError(ErrorCode::kInvalid, "{}: tensor {}: n_dimensions is {}; 1 to 4 are allowed",
                     file.path(), name, dims);
  }
  t->dims = static_cast<int>(dims);
  CheckedSize elements = 1;
  for (uint32_t d = 0; d < dims; ++d) {
    uint64_t n = 0;
    KV_RETURN_IF_ERROR(in.Read(&n, name));
    elements *= n;
    if (n < 1 || n > (uint64_t{1} << 40) || !elements.AtMost(uint64_t{1} << 48)) {
      return MakeError(
          ErrorCode::kInvalid,
          "{}: tensor {}: dimension {} is {}; 1 to 2^40 are allowed, 2^48 elements in all",
          file.path(), name, d, n);
    }
    t->ne[d] = static_cast<int64_t>(n);
  }
  KV_RETURN_IF_ERROR(in.Read(&type, name));
  KV_RETURN_IF_ERROR(in.Read(offset, name));
  return CheckTensorType(file, name, type, t);
}

Result<uint64_t> Alignment(const MappedFile& file, const Part& part) {
  for (const auto& [key, value] : part.metadata) {
    if (key != "general.alignment") continue;
    const uint64_t* v = std::get_if<uint64_t>(&value);
    if (v == nullptr || *v < 1 || *v > kMaxAlignment || !std::has_single_bit(*v)) {
      return MakeError(
          ErrorCode::kInvalid, "{}: general.alignment is {}; a power of two up to {} is allowed",
          file.path(), v != nullptr ? fmt::to_string(*v) : "not an unsigned number", kMaxAlignment);
    }
    return *v;
  }
  return uint64_t{32};
}

Status CheckOverlaps(const MappedFile& file, std::vector<GgufTensor> tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const GgufTensor& a, const GgufTensor& b) { return a.data < b.data; });
  for (size_t i = 1; i < tensors.size(); ++i) {
    if (tensors[i - 1].data + tensors[i - 1].bytes > tensors[i].data) {
      return MakeError(ErrorCode::kInvalid, "{}: tensor {} overlaps tensor {}", file.path(),
                       Printable(tensors[i].name), Printable(tensors[i - 1].name));
    }
  }
  return {};
}

Result<Part> ReadPart(const MappedFile& file, int index) {
  Reader in(file);
  Part part;
  uint64_t tensor_count = 0, metadata_count = 0;
  KV_RETURN_IF_ERROR(ReadHeader(in, file, &part.version, &tensor_count, &metadata_count));
  size_t budget = file.bytes().size() + kArraySlackBytes;
  for (uint64_t i = 0; i < metadata_count; ++i) {
    std::string_view key;
    KV_RETURN_IF_ERROR(in.ReadString(&key, "metadata key", kMaxKeyBytes));
    if (key.empty()) {
      return MakeError(ErrorCode::kInvalid, "{}: metadata key {} is empty", file.path(), i);
    }
    KV_ASSIGN(GgufValue value, ValueReader(in, file.path(), key, &budget).Read());
    part.metadata.emplace_back(key, std::move(value));
  }
  KV_ASSIGN(const uint64_t alignment, Alignment(file, part));

  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensor tensor;
    uint64_t offset = 0;
    KV_RETURN_IF_ERROR(ReadTensorInfo(in, file, &tensor, &offset));
    tensor.file = index;
    part.tensors.push_back(tensor);
    offsets.push_back(offset);
  }
  const std::optional<uint64_t> data = CheckedSize(in.position()).RoundUp(alignment).Get();
  for (size_t i = 0; i < part.tensors.size(); ++i) {
    GgufTensor& t = part.tensors[i];
    if (offsets[i] % alignment != 0) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: tensor {}: offset {} is not a multiple of general.alignment {}",
                       file.path(), Printable(t.name), offsets[i], alignment);
    }
    const CheckedSize end = CheckedSize(*data) + offsets[i] + t.bytes;
    if (!end.AtMost(file.bytes().size())) {
      return MakeError(
          ErrorCode::kInvalid,
          "{}: tensor {}: {} bytes at offset {} end beyond the file of {} bytes (is it cut off?)",
          file.path(), Printable(t.name), t.bytes, offsets[i], file.bytes().size());
    }
    t.data = file.bytes().data() + *data + offsets[i];
  }
  KV_RETURN_IF_ERROR(CheckOverlaps(file, part.tensors));
  return part;
}

/// name-00002-of-00003.gguf: the prefix "name", and the count; nullopt for a single file.
struct SplitName {
  std::string prefix;
  uint32_t count = 0;
  std::string Path(uint32_t part) const {
    return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, part + 1, count);
  }
};

std::optional<SplitName> ParseSplitName(const std::string& path) {
  constexpr size_t kSuffix = sizeof("-00001-of-00003.gguf") - 1;
  if (path.size() <= kSuffix) return std::nullopt;
  const std::string tail = path.substr(path.size() - kSuffix);
  const auto number = [](const std::string& digits) -> uint32_t {
    uint32_t n = 0;
    for (const char c : digits) {
      if (c < '0' || c > '9') return 0;
      n = n * 10 + static_cast<uint32_t>(c - '0');
    }
    return n;
  };
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf")
    return std::nullopt;
  const uint32_t part = number(tail.substr(1, 5)), count = number(tail.substr(10, 5));
  if (part < 1 || count < 1 || part > count) return std::nullopt;
  return SplitName{path.substr(0, path.size() - kSuffix), count};
}

}  // namespace

Result<GgufFile> GgufFile::Open(const std::string& path) {
  GgufFile model;
  std::vector<std::string> paths = {path};
  const auto split = ParseSplitName(path);
  if (split) {
    if (split->count > kMaxParts) {
      return MakeError(ErrorCode::kInvalid, "{}: {} parts; at most {} are supported", path,
                       split->count, kMaxParts);
    }
    paths.clear();
    for (uint32_t i = 0; i < split->count; ++i) paths.push_back(split->Path(i));
  }
  for (size_t i = 0; i < paths.size(); ++i) {
    KV_ASSIGN(MappedFile file, MappedFile::Open(paths[i]));
    model.files_.push_back(std::move(file));
  }
  for (size_t i = 0; i < model.files_.size(); ++i) {
    const MappedFile& file = model.files_[i];
    KV_ASSIGN(Part part, ReadPart(file, static_cast<int>(i)));
    if (i == 0) model.version_ = part.version;
    std::map<std::string_view, GgufValue> metadata;
    for (auto& [key, value] : part.metadata) {
      if (!metadata.emplace(key, std::move(value)).second) {
        return MakeError(ErrorCode::kInvalid, "{}: metadata key {} is there twice", file.path(),
                         Printable(key));
      }
    }
    KV_RETURN_IF_ERROR(model.AddPart(file, i, std::move(metadata), part.tensors));
  }
  return model;
}

Status GgufFile::AddPart(const MappedFile& file, size_t index,
                         std::map<std::string_view, GgufValue> metadata,
                         const std::vector<GgufTensor>& tensors) {
  const auto number = [&](std::string_view key) -> std::optional<int64_t> {
    const auto it = metadata.find(key);
    if (it == metadata.end()) return std::nullopt;
    if (const auto* u = std::get_if<uint64_t>(&it->second)) return static_cast<int64_t>(*u);
    if (const auto* s = std::get_if<int64_t>(&it->second)) return *s;
    return -1;
  };
  const auto count = number("split.count"), no = number("split.no");
  const auto parts = static_cast<int64_t>(files_.size());
  if (count && *count != parts && !(*count == 0 && parts == 1)) {
    return MakeError(ErrorCode::kInvalid,
                     "{}: split.count is {}, but {} part(s) were opened; a part's name ends in "
                     "-00001-of-{:05}.gguf",
                     file.path(), *count, parts, *count);
  }
  if (no && *no != static_cast<int64_t>(index)) {
    return MakeError(ErrorCode::kInvalid, "{}: split.no is {} instead of {}", file.path(), *no,
                     index);
  }
  if (parts > 1 && (!count || !no)) {
    return MakeError(ErrorCode::kInvalid,
                     "{}: split.count or split.no is missing in a part of a split model",
                     file.path());
  }
  for (const GgufTensor& t : tensors) {
    if (!by_name_.emplace(t.name, tensors_.size()).second) {
      return MakeError(ErrorCode::kInvalid, "{}: tensor {} is there twice", file.path(),
                       Printable(t.name));
    }
    tensors_.push_back(t);
  }
  if (index == 0) metadata_ = std::move(metadata);
  const GgufValue* all = FindValue("split.tensors.count");
  if (index + 1 == files_.size() && parts > 1 && all != nullptr) {
    KV_ASSIGN(const auto expected, Int("split.tensors.count", 0, INT64_MAX));
    if (*expected != static_cast<int64_t>(tensors_.size())) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: split.tensors.count is {}, but the parts hold {} tensors",
                       files_[0].path(), *expected, tensors_.size());
    }
  }
  return {};
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const GgufValue* GgufFile::FindValue(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

size_t GgufFile::total_bytes() const {
  size_t total = 0;
  for (const MappedFile& f : files_) total += f.bytes().size();
  return total;
}

Result<std::optional<int64_t>> GgufFile::Int(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return std::optional<int64_t>();
  const auto outside = [&](auto v) {
    return MakeError(ErrorCode::kInvalid, "{}: {} is {}; {} to {} are allowed", path(), key, v, min,
                     max);
  };
  if (const auto* u = std::get_if<uint64_t>(value)) {
    if (*u > static_cast<uint64_t>(INT64_MAX) || static_cast<int64_t>(*u) < min ||
        static_cast<int64_t>(*u) > max) {
      return outside(*u);
    }
    return std::optional<int64_t>(static_cast<int64_t>(*u));
  }
  if (const auto* s = std::get_if<int64_t>(value)) {
    if (*s < min || *s > max) return outside(*s);
    return std::optional<int64_t>(*s);
  }
  return MakeError(ErrorCode::kInvalid, "{}: {} is not a whole number", path(), key);
}

Result<std::optional<double>> GgufFile::Float(std::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return std::optional<double>();
  const double* v = std::get_if<double>(value);
  if (v == nullptr || !std::isfinite(*v)) {
    return MakeError(ErrorCode::kInvalid, "{}: {} is {}; a finite floating point number is needed",
                     path(), key, v == nullptr ? "of another type" : fmt::to_string(*v));
  }
  return std::optional<double>(*v);
}

Result<std::optional<bool>> GgufFile::Bool(std::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return std::optional<bool>();
  const bool* v = std::get_if<bool>(value);
  if (v == nullptr) return MakeError(ErrorCode::kInvalid, "{}: {} is not a boolean", path(), key);
  return std::optional<bool>(*v);
}

Result<std::optional<std::string_view>> GgufFile::String(std::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return std::optional<std::string_view>();
  const auto* v = std::get_if<std::string_view>(value);
  if (v == nullptr) return MakeError(ErrorCode::kInvalid, "{}: {} is not a string", path(), key);
  return std::optional<std::string_view>(*v);
}

}  // namespace kvasir
