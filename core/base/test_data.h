#pragma once
// For tests only: where outside data lies, how a test says that it is missing, and the worst of many errors.

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <system_error>

namespace qlora::test {

// The root of the source tree (known to test_main.cpp alone, so that other tests compile to the same wherever
// it lies).
std::string source_folder();

// ${QLORA_GOLDENS}, or ../shared/goldens beside the source tree.
inline std::filesystem::path goldens() {
  const char* p = std::getenv("QLORA_GOLDENS");
  return p != nullptr ? std::filesystem::path(p)
                      : std::filesystem::path(source_folder()) / "../shared/goldens";
}

// ${QLORA_TEST_DATA}, or ../shared/data beside the source tree.
inline std::filesystem::path test_data() {
  const char* p = std::getenv("QLORA_TEST_DATA");
  return p != nullptr ? std::filesystem::path(p) : std::filesystem::path(source_folder()) / "../shared/data";
}

// ${QLORA_HOME}/models/NAME, or .cache/qlora/models/NAME in the source tree: a real model that the user has
// imported.
inline std::filesystem::path model_folder(const std::string& name) {
  const char* home = std::getenv("QLORA_HOME");
  const std::filesystem::path base =
      home != nullptr ? std::filesystem::path(home) : std::filesystem::path(source_folder()) / ".cache/qlora";
  return base / "models" / name;
}

// Prints the line by which ctest counts a test as skipped, unless `path` exists. Use: if (missing(p)) return;
inline bool missing(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) return false;
  std::printf("SKIPPED: no %s\n", path.c_str());
  return true;
}

// One part of a test has nothing to work on; the others go on. Visible, but does not count as skipped.
inline void skip_part(const std::string& why) {
  std::printf("(skipped a part: %s)\n", why.c_str());
}

// The larger of two errors, for the worst of many. An error that is not finite is infinite: std::max(worst,
// NaN) would be `worst`, and a result that is NaN would pass for a right one.
inline double worse(double so_far, double error) {
  return std::isfinite(so_far) && std::isfinite(error) ? std::max(so_far, error)
                                                       : std::numeric_limits<double>::infinity();
}

// A fresh folder below the system's temporary folder, removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "qlora-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      throw std::system_error(errno, std::generic_category(), "cannot create the folder " + name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace qlora::test
