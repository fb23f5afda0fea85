#include "backend/backend.h"

namespace kvasir {

const char* NameOf(Op op) {
  constexpr const char* kNames[kOps] = {"embed", "norm", "matmul", "rope+append", "attention"};
  return kNames[static_cast<int>(op)];
}

OpCounters& OpCounters::operator+=(const OpCounters& o) {
  projections += o.projections;
  matmul_flops += o.matmul_flops;
  weight_bytes += o.weight_bytes;
  attention_ops += o.attention_ops;
  attention_flops += o.attention_flops;
  kv_bytes_read += o.kv_bytes_read;
  kv_bytes_written += o.kv_bytes_written;
  for (int i = 0; i < kOps; ++i) op_ns[i] += o.op_ns[i];
  return *this;
}

OpCounters operator-(OpCounters a, const OpCounters& b) {
  a.projections -= b.projections;
  a.matmul_flops -= b.matmul_flops;
  a.weight_bytes -= b.weight_bytes;
  a.attention_ops -= b.attention_ops;
  a.attention_flops -= b.attention_flops;
  a.kv_bytes_read -= b.kv_bytes_read;
  a.kv_bytes_written -= b.kv_bytes_written;
  for (int i = 0; i < kOps; ++i) a.op_ns[i] -= b.op_ns[i];
  return a;
}

}  // namespace kvasir
