#pragma once
// For tests: with cuBLAS or without.

#include <cstdlib>
#include <optional>
#include <string>

namespace qlora::emulated::test {

// Sets QLORA_CUBLAS and puts back what was there.
class ChosenBlas {
 public:
  explicit ChosenBlas(const char* value) {
    if (const char* was = std::getenv(kName)) before_ = was;
    setenv(kName, value, 1);
  }
  ~ChosenBlas() { before_ ? setenv(kName, before_->c_str(), 1) : unsetenv(kName); }
  ChosenBlas(const ChosenBlas&) = delete;
  ChosenBlas& operator=(const ChosenBlas&) = delete;

 private:
  static constexpr const char* kName = "QLORA_CUBLAS";
  std::optional<std::string> before_;
};

}  // namespace qlora::emulated::test
