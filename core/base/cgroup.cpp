#include "core/base/cgroup.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>

namespace qlora {
namespace {

using Path = std::filesystem::path;

// The first two numbers of a file; less where it holds words ("max") or is not there.
std::vector<double> numbers_in(const Path& path) {
  std::ifstream file(path);
  std::vector<double> numbers;
  for (double value; numbers.size() < 2 && file >> value;) numbers.push_back(value);
  return numbers;
}

// Whether `controller` is among "cpu,cpuacct".
bool names(std::string_view list, std::string_view controller) {
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (list.substr(begin, end - begin) == controller) return true;
    begin = end + 1;
  }
  return false;
}

// Quota and period in microseconds: cores. A quota of -1 is none.
std::optional<double> cores_in(const Path& folder) {
  std::vector<double> v = numbers_in(folder / "cpu.max");
  if (v.size() == 1) v.push_back(100000);
  if (v.empty()) {
    const std::vector<double> quota = numbers_in(folder / "cpu.cfs_quota_us"),
                              period = numbers_in(folder / "cpu.cfs_period_us");
    if (quota.empty() || period.empty()) return std::nullopt;
    v = {quota[0], period[0]};
  }
  if (v[0] <= 0 || v[1] <= 0) return std::nullopt;
  return v[0] / v[1];
}

}  // namespace

std::vector<Path> cgroup_folders(std::string_view controller, const Path& root) {
  const Path mount = root / "sys/fs/cgroup";
  std::vector<Path> folders;
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "0::/group" or "4:cpu,cpuacct:/group"
    const size_t first = line.find(':'), second = first == line.npos ? first : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string list = line.substr(first + 1, second - first - 1);
    if (!list.empty() && !names(list, controller)) continue;
    const Path top = list.empty() ? mount : mount / controller;
    // A container sees its groups as the host names them, but mounted without those above: what is not there
    // is passed over on the way up.
    for (Path group = Path(line.substr(second + 1)).relative_path(); !group.empty();
         group = group.parent_path())
      folders.push_back(top / group);
    folders.push_back(top);
  }
  for (const Path& top : {mount, mount / controller})
    if (std::find(folders.begin(), folders.end(), top) == folders.end()) folders.push_back(top);
  return folders;
}

int cgroup_cores(const Path& root) {
  double least = 0;
  for (const Path& folder : cgroup_folders("cpu", root))
    if (std::optional<double> cores = cores_in(folder); cores && (least == 0 || *cores < least))
      least = *cores;
  return static_cast<int>(std::ceil(least));
}

size_t cgroup_memory(const Path& root) {
  double least = 0;
  for (const Path& folder : cgroup_folders("memory", root))
    for (const char* name : {"memory.max", "memory.limit_in_bytes"})
      if (const std::vector<double> limit = numbers_in(folder / name); !limit.empty() && limit[0] > 0)
        least = least == 0 ? limit[0] : std::min(least, limit[0]);
  return static_cast<size_t>(least);
}

}  // namespace qlora
