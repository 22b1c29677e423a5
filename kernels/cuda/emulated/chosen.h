#pragma once
// For tests: a variable of the environment, for as long as this is there.

#include <cstdlib>
#include <optional>
#include <string>

namespace qlora::emulated::test {

class Chosen {
 public:
  Chosen(const char* name, const char* value) : name_(name) {
    if (const char* was = std::getenv(name)) before_ = was;
    setenv(name, value, 1);
  }
  ~Chosen() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }
  Chosen(const Chosen&) = delete;
  Chosen& operator=(const Chosen&) = delete;

 private:
  const char* const name_;
  std::optional<std::string> before_;
};

}  // namespace qlora::emulated::test
