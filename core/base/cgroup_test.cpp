#include "core/base/cgroup.h"

#include <sched.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <thread>

#include "core/base/file.h"
#include "core/base/parallel.h"
#include "core/base/test_data.h"

using namespace qlora;

namespace {

// Another /proc and /sys.
struct Root {
  test::TemporaryFolder folder;
  void write(const std::string& name, const std::string& text) const {
    const Path path = folder.path() / name;
    std::filesystem::create_directories(path.parent_path());
    write_file(path, text);
  }
  int cores() const { return cgroup_cores(folder.path()); }
  size_t memory() const { return cgroup_memory(folder.path()); }
};

// Environment variables for the length of a test.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& values) {
    for (const char* name : {"QLORA_THREADS", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"}) {
      const char* old = std::getenv(name);
      if (old != nullptr) before_[name] = old;
      ::unsetenv(name);
      if (values.contains(name)) ::setenv(name, values.at(name).c_str(), 1);
    }
  }
  ~Environment() {
    for (const char* name : {"QLORA_THREADS", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"})
      before_.contains(name) ? ::setenv(name, before_[name].c_str(), 1) : ::unsetenv(name);
  }

 private:
  std::map<std::string, std::string> before_;
};

}  // namespace

TEST_CASE("limits of control groups are found in a process' own group and in every one above it") {
  Root none;
  CHECK(none.cores() == 0);
  CHECK(none.memory() == 0);

  Root slurm;  // version 2, as a batch system makes it: the job is limited, not the task
  slurm.write("proc/self/cgroup", "0::/system.slice/job_7/step_0/task_0\n");
  slurm.write("sys/fs/cgroup/system.slice/job_7/cpu.max", "250000 100000\n");
  slurm.write("sys/fs/cgroup/system.slice/job_7/step_0/cpu.max", "max 100000\n");
  slurm.write("sys/fs/cgroup/system.slice/cpu.max", "1600000 100000\n");
  slurm.write("sys/fs/cgroup/system.slice/job_7/memory.max", "8589934592\n");
  slurm.write("sys/fs/cgroup/system.slice/job_7/step_0/memory.max", "max\n");
  CHECK(slurm.cores() == 3);
  CHECK(slurm.memory() == size_t{8} << 30);

  Root docker;  // version 1 in a container: the group's path is the host's, and its files lie at the top
  docker.write("proc/self/cgroup",
               "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n");
  docker.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
  docker.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "200000\n");
  docker.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(docker.cores() == 2);
  CHECK(docker.memory() > size_t{1} << 62);
  docker.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  CHECK(docker.cores() == 0);
  docker.write("sys/fs/cgroup/cpuset/docker/abc/cpu.max", "100000 100000\n");  // not where cpu's files are
  CHECK(docker.cores() == 0);

  Root half;  // version 2 in a container
  half.write("proc/self/cgroup", "0::/\n");
  half.write("sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK(half.cores() == 1);
}

TEST_CASE("by default there are as many threads as were asked for and as there are cores for") {
  cpu_set_t all;
  REQUIRE(::sched_getaffinity(0, sizeof all, &all) == 0);
  const int cores = allowed_cores();
  CHECK(cores >= 1);
  CHECK(cores <= CPU_COUNT(&all));
  auto threads = [](const std::map<std::string, std::string>& values) {
    Environment environment(values);
    return default_thread_count();
  };
  CHECK(threads({}) == cores);
  CHECK(threads({{"OMP_NUM_THREADS", "1"}}) == 1);
  CHECK(threads({{"SLURM_CPUS_PER_TASK", "1"}}) == 1);
  CHECK(threads({{"OMP_NUM_THREADS", "1,4"}, {"SLURM_CPUS_PER_TASK", "3"}}) == 1);
  // A number that was meant for another machine, or for the whole node, does not fill this one with threads.
  CHECK(threads({{"OMP_NUM_THREADS", "4000"}}) == cores);
  CHECK(threads({{"SLURM_CPUS_PER_TASK", "4000"}}) == cores);
  // What was said to this program counts as it is.
  CHECK(threads({{"QLORA_THREADS", "37"}, {"OMP_NUM_THREADS", "1"}}) == 37);
  for (const char* nonsense : {"", "0", "-3", "many"})
    CHECK(threads({{"QLORA_THREADS", nonsense}, {"OMP_NUM_THREADS", nonsense}}) == cores);

  // A batch system or taskset that binds the process to one core.
  std::thread bound([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; ++i)
      if (CPU_ISSET(i, &all) && CPU_COUNT(&one) == 0) CPU_SET(i, &one);
    REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(allowed_cores() == 1);
    CHECK(threads({{"OMP_NUM_THREADS", "8"}}) == 1);
  });
  bound.join();
}
