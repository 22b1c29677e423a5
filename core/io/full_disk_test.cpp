#include <catch2/catch.hpp>

#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>

#include "core/base/error.h"
#include "core/base/test_data.h"
#include "core/io/safetensors.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

// Writes 1 MiB of weights where less fits: an error of kind failure with the path and `reason`, and nothing
// left.
void check_that_it_does_not_fit(const Path& folder, const std::string& reason) {
  const Path path = folder / "model.safetensors";
  std::vector<std::byte> data(1 << 20);
  std::vector<TensorOut> out{{"w", DType::u8, {1 << 20}, data}};
  try {
    write_safetensors(path, out);
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::failure);
    CHECK_THAT(e.what(), Contains(path.string()) && Contains(reason));
  }
  CHECK(std::filesystem::is_empty(folder));
}

}  // namespace

TEST_CASE("a file that outgrows the limit of the system is an error that leaves nothing behind") {
  test::TemporaryFolder folder;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit small = before;
  small.rlim_cur = 1 << 16;
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  check_that_it_does_not_fit(folder.path(), "File too large");
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
}

TEST_CASE("a full disk is an error that leaves nothing behind") {
  test::TemporaryFolder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=256k") != 0) {
    std::printf("SKIPPED: cannot mount a small file system (not root)\n");
    return;
  }
  check_that_it_does_not_fit(folder.path(), "No space left on device");
  ::umount2(folder.path().c_str(), MNT_DETACH);
}
