#include "core/base/log.h"

#include <mutex>

namespace qlora {
namespace {
std::mutex mutex;
LogSink sink;
}  // namespace

LogSink set_log_sink(LogSink s) {
  std::lock_guard lock(mutex);
  std::swap(sink, s);
  return s;
}

void log(LogLevel level, std::string_view text) {
  std::lock_guard lock(mutex);
  if (sink) sink(level, text);
}

}  // namespace qlora
