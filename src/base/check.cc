#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace kvasir {

void CheckFailed(const char* file, int line, const std::string& text) {
  std::fprintf(stderr, "kvasir: internal error at %s:%d: %s\n", file, line, text.c_str());
  std::abort();
}

}  // namespace kvasir
