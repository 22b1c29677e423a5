#pragma once
// What the kernel's control groups allow this process: version 1 and 2, its own group and all above it (a
// batch system limits a job's group, not the process'). `root` is another root of /proc and /sys, for tests.

#include <cstddef>
#include <filesystem>
#include <string_view>
#include <vector>

namespace qlora {

// Folders where files of a controller ("cpu", "memory") may lie, innermost group first.
std::vector<std::filesystem::path> cgroup_folders(std::string_view controller,
                                                  const std::filesystem::path& root = "/");

// The least CPU quota, in whole cores, rounded up. 0: none.
int cgroup_cores(const std::filesystem::path& root = "/");
// The least limit of memory in bytes. 0: none.
size_t cgroup_memory(const std::filesystem::path& root = "/");

}  // namespace qlora
