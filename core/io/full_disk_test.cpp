#include <catch2/catch.hpp>

#include <sys/resource.h>

#include <csignal>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "core/io/small_disk.h"

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

// No file of this process may grow beyond `bytes`; a write that would is an error instead of a signal.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before_) == 0);
    rlimit small = before_;
    small.rlim_cur = bytes;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_{};
};

}  // namespace

TEST_CASE("a file that outgrows the limit of the system is an error that leaves nothing behind") {
  test::TemporaryFolder folder;
  FileSizeLimit limit(1 << 16);
  check_that_it_does_not_fit(folder.path(), "File too large");
}

TEST_CASE("a full disk is an error that leaves nothing behind") {
  test::SmallDisk disk("256k");
  if (!disk.mounted()) return;
  check_that_it_does_not_fit(disk.path(), "No space left on device");
}
