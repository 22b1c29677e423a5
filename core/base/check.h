#pragma once
// Errors with formatted text. Not for device code (fmt does not compile under nvcc).

#include <fmt/format.h>

#include <string>
#include <utility>

#include "core/base/error.h"

namespace qlora {

// Throws Error(kind, formatted message).
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// A place in a text file, counted from 1; column 0 means "the whole line".
struct Where {
  std::string file;
  int line = 0;
  int column = 0;
  std::string text() const {
    if (line == 0) return file;
    return column == 0 ? fmt::format("{}:{}", file, line) : fmt::format("{}:{}:{}", file, line, column);
  }
};

}  // namespace qlora

// Checks a condition that a caller or a file may have broken; throws Error(kind, message).
#define QLORA_CHECK(condition, kind, ...)                                    \
  do {                                                                       \
    if (!(condition)) ::qlora::fail(::qlora::ErrorKind::kind, __VA_ARGS__);  \
  } while (false)
