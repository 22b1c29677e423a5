#include "experiments/bench/child.h"

#include <poll.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/child_process.h"

namespace qlora::bench {

void ask_child(const std::vector<std::string>& arguments, const std::function<void(const Json&)>& answered) {
  const Path log = std::filesystem::temp_directory_path() / fmt::format("qlora-bench-{}.log", ::getpid());
  std::string unread;
  auto take_lines = [&] {
    for (size_t at; (at = unread.find('\n')) != std::string::npos; unread.erase(0, at + 1))
      answered(parse_json(unread.substr(0, at), "the answer of a measuring process"));
  };
  ProcessEnd end;
  bool open = true;
  {
    ChildProcess child(arguments, log);
    struct pollfd waiting {
      child.pipe(), POLLIN, 0
    };
    while (open) {
      ::poll(&waiting, 1, -1);
      open = child.read_some(unread);
      take_lines();
    }
    end = child.wait();
  }
  const std::string said = read_file(log);
  std::filesystem::remove(log);
  QLORA_CHECK(end.exit_code == 0 && end.signal == 0, failure, "`qlora {}` ended with {}: {}",
              fmt::join(arguments, " "),
              end.signal != 0 ? fmt::format("signal {}", end.signal) : fmt::format("code {}", end.exit_code),
              said);
}

void answer_parent(const Json& answer) {
  const std::string text = answer.dump() + '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t n = ::write(ChildProcess::kPipe, rest.data(), rest.size());
    QLORA_CHECK(n > 0, failure,
                "nobody reads file descriptor {}: this is a process that `qlora bench` starts",
                ChildProcess::kPipe);
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace qlora::bench
