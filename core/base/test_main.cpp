// The main function of every test program; compiled once (Catch2's header is slow). And where the source tree
// lies.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "core/base/test_data.h"

std::string qlora::test::source_folder() {
  return QLORA_SOURCE_DIR;
}
