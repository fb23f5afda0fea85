#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "app/model_path.h"

namespace kvasir {

/// The default model's path, or "" if it was not fetched.
inline std::string DefaultModelPath() {
  const Result<std::string> path = FindModel("");
  return path.ok() ? *path : "";
}

}  // namespace kvasir

/// Skips a test that needs the default model where it was not fetched. The test command fetches it
/// and sets KVASIR_REQUIRE_MODEL, so that there the test fails instead.
#define SKIP_WITHOUT_DEFAULT_MODEL()                                                    \
  do {                                                                                  \
    if (::kvasir::DefaultModelPath().empty()) {                                         \
      if (std::getenv("KVASIR_REQUIRE_MODEL") != nullptr) FAIL() << "no default model"; \
      GTEST_SKIP() << "tools/fetch-model.sh fetches the default model";                 \
    }                                                                                   \
  } while (0)
