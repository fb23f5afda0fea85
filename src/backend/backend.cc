#include "backend/backend.h"

namespace kvasir {

OpCounters& OpCounters::operator+=(const OpCounters& o) {
  projections += o.projections;
  matmul_flops += o.matmul_flops;
  weight_bytes += o.weight_bytes;
  attention_ops += o.attention_ops;
  attention_flops += o.attention_flops;
  kv_bytes_read += o.kv_bytes_read;
  kv_bytes_written += o.kv_bytes_written;
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
  return a;
}

}  // namespace kvasir
