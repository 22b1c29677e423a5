#pragma once
// Warnings and notes of the library. The library never prints: the program installs a sink; tests install one
// that fails on a warning.

#include <fmt/format.h>

#include <functional>
#include <string_view>
#include <utility>

namespace qlora {

enum class LogLevel { debug, info, warning };

using LogSink = std::function<void(LogLevel, std::string_view)>;

// Replaces the sink (none at first) and returns the old one. Safe from any thread.
LogSink set_log_sink(LogSink);
void log(LogLevel, std::string_view);

template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qlora
