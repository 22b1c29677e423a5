// What is left after a killed writer, with two writers at once, and on a full disk.
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <thread>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "results/query.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "results/test_rows.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Contains;

namespace {

std::string integrity(const Path& path) {
  Database db(path, Database::Mode::write);
  Statement check(db, "PRAGMA integrity_check");
  check.step();
  return check.text(0);
}

int64_t count(const Path& path, const std::string& sql) {
  return std::get<int64_t>(run_query(path, sql).rows.at(0).at(0));
}

// A file system of 3 MiB in memory.
struct SmallDisk : TemporaryFolder {
  bool mounted = ::mount("tmpfs", path().c_str(), "tmpfs", 0, "size=3m") == 0;
  ~SmallDisk() {
    if (mounted) ::umount(path().c_str());
  }
};

// Writes steps and evaluations for ever; tells the step after each acknowledged flush through the pipe.
[[noreturn]] void write_for_ever(const Path& path, const Digest& run, int64_t step, int pipe) {
  Store store = Store::open(path);
  for (;;) {
    for (int i = 0; i < 7; ++i) {
      StepRow row = step_row(++step, 1.0);
      store.write_steps(run, std::span(&row, 1));
    }
    store.flush();
    if (::write(pipe, &step, sizeof step) != sizeof step) ::_exit(1);
    store.write_evaluation(mmlu_row(run_subject("one"), step, 2));
  }
}

}  // namespace

TEST_CASE("a writer killed at any moment leaves a sound store with everything it had acknowledged") {
  TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  RunRow run = run_row("one");
  Store::open(path).declare_sweep("s", "", std::span(&run, 1));
  int64_t acknowledged = 0;
  for (int round = 0; round < 12; ++round) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) write_for_ever(path, run.key, acknowledged, ends[1]);
    ::close(ends[1]);
    int64_t step = 0;
    REQUIRE(::read(ends[0], &step, sizeof step) == sizeof step);  // it is at work
    std::this_thread::sleep_for(std::chrono::milliseconds(3 + 5 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    do acknowledged = step;
    while (::read(ends[0], &step, sizeof step) == sizeof step);
    ::close(ends[0]);

    REQUIRE(integrity(path) == "ok");
    CHECK(count(path, "SELECT count(*) FROM pragma_foreign_key_check") == 0);
    CHECK(count(path, "SELECT max(step) FROM curves") >= acknowledged);
    CHECK(count(path, "SELECT max(step) = count(*) FROM curves") == 1);
    // Evaluations are whole.
    CHECK(count(path,
                "SELECT count(*) FROM evaluation e WHERE (SELECT count(*) FROM prediction p "
                "WHERE p.evaluation_id = e.evaluation_id) <> 4") == 0);
  }
}

TEST_CASE("two processes that write at once wait for each other") {
  TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  std::vector<RunRow> runs = {run_row("one"), run_row("two")};
  Store::open(path).declare_sweep("s", "", runs);
  auto write = [&](const RunRow& run) {
    Store store = Store::open(path);
    for (int64_t step = 1; step <= 100; ++step) {
      StepRow row = step_row(step, 1.0);
      store.write_steps(run.key, std::span(&row, 1));
      store.flush();
    }
  };
  pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    try {
      write(runs[0]);
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  write(runs[1]);
  int status = 1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(count(path, "SELECT count(*) FROM curves") == 200);
}

TEST_CASE("a full disk is reported and leaves the store as it was") {
  SmallDisk disk;
  if (!disk.mounted) {
    std::printf("SKIPPED: mounting a small file system needs the rights of root\n");
    return;
  }
  Path path = disk.path() / "r.db";
  RunRow run = run_row("one");
  {
    Store store = Store::open(path);
    store.declare_sweep("s", "", std::span(&run, 1));
    store.write_evaluation(mmlu_row(run_subject("one"), 1, 2));
    EvalRow large = mmlu_row(run_subject("one"), 2, 2);
    large.predictions[0].scores.assign(2 << 20, 1.f);
    CHECK_THROWS_WITH(store.write_evaluation(large), Contains("disk is full") && Contains("r.db"));
    CHECK_FALSE(store.has_evaluation(large.key));
    // Small things still fit.
    store.write_evaluation(loss_row(run_subject("one"), 1, 2.0));
  }
  CHECK(integrity(path) == "ok");
  CHECK(count(path, "SELECT count(*) FROM evaluation") == 2);
  CHECK(count(path, "SELECT count(*) FROM prediction") == 4);
}
