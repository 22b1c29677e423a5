// How much memory there is, and how users write it.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "core/base/cgroup.h"
#include "experiments/plan.h"

namespace qlora {
namespace {

// The value of a line "name:  123 kB".
size_t kilobytes_in(const char* path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name)) return std::strtoull(line.c_str() + name.size(), nullptr, 10) * 1024;
  return 0;
}

}  // namespace

size_t available_memory() {
  size_t bytes = kilobytes_in("/proc/meminfo", "MemAvailable:");
  // What a group uses includes the page cache, which gives way: only its limit is hard.
  if (const size_t limit = cgroup_memory(); limit > 0) bytes = std::min(bytes, limit);
  return bytes;
}

size_t resident_memory() {
  return kilobytes_in("/proc/self/status", "VmRSS:");
}

size_t peak_resident_memory() {
  return kilobytes_in("/proc/self/status", "VmHWM:");
}

size_t parse_memory(const std::string& text) {
  return parse_memory(text, text.ends_with('%') ? available_memory() : 0);
}

size_t parse_memory(const std::string& text, size_t available) {
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(static_cast<const char*>(end), static_cast<size_t>(text.data() + text.size() - end));
  bool good = error == std::errc() && value > 0;
  if (good && unit == "%") return static_cast<size_t>(static_cast<double>(available) * value / 100);
  for (const char* suffix : {"iB", "B", "b"})
    if (unit.ends_with(suffix) && unit.size() > 1) unit.erase(unit.size() - std::string_view(suffix).size());
  const std::string units = "KMGT";
  double scale = 1;
  if (unit.size() == 1 && units.find(unit[0]) != std::string::npos) {
    for (size_t i = 0; i <= units.find(unit[0]); ++i) scale *= 1024;
  } else {
    good = good && (unit.empty() || unit == "B");
  }
  QLORA_CHECK(good, usage, "`{}` is no amount of memory; write 12G, 800M, 80% or a number of bytes", text);
  return static_cast<size_t>(value * scale);
}

std::string format_bytes(size_t bytes) {
  auto value = static_cast<double>(bytes);
  if (value >= 10.0 * (1ULL << 30)) return fmt::format("{:.1f} GiB", value / (1 << 30));
  return fmt::format("{:.0f} MiB", std::ceil(value / (1 << 20)));
}

}  // namespace qlora
