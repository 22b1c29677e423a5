#include "core/base/file.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <thread>

#include "core/base/error.h"
#include "core/base/test_data.h"

using namespace qlora;

namespace {

int64_t entries(const Path& folder) {
  return std::distance(std::filesystem::directory_iterator(folder), {});
}

void write_folder(const Path& path, const std::string& text) {
  AtomicFolder folder(path);
  write_file(folder.path() / "x", text);
  folder.commit();
}

// The id of a process that has ended.
pid_t dead_process() {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  ::waitpid(pid, nullptr, 0);
  return pid;
}

// Pages of files that this process has in memory.
int64_t file_pages() {
  int64_t size = 0, resident = 0, of_files = 0;
  std::ifstream("/proc/self/statm") >> size >> resident >> of_files;
  return of_files;
}

}  // namespace

TEST_CASE("pages of a mapped file that are dropped leave the memory and can be read again") {
  test::TemporaryFolder dir;
  constexpr size_t kBytes = 16 << 20;
  std::string content(kBytes, 'a');
  for (size_t i = 0; i < kBytes; i += 1000) content[i] = static_cast<char>('a' + i / 1000 % 26);
  write_file(dir.path() / "x", content);
  MappedFile file(dir.path() / "x");
  REQUIRE(file.text() == content);
  const int64_t before = file_pages();
  drop_pages(file.bytes().subspan(1, kBytes - 2));
  const auto pages = static_cast<int64_t>(kBytes) / ::sysconf(_SC_PAGESIZE);
  CHECK(before - file_pages() > pages / 2);
  CHECK(file.text() == content);
  drop_pages({});
}

TEST_CASE("a folder that is being replaced is there at every moment") {
  test::TemporaryFolder dir;
  const Path path = dir.path() / "checkpoint";
  write_folder(path, "first");
  std::atomic<bool> stop = false;
  std::atomic<int> looks = 0, gone = 0;
  std::thread reader([&] {
    while (!stop) {
      ++looks;
      if (!std::filesystem::exists(path / "x")) ++gone;
    }
  });
  for (int i = 0; i < 30; ++i) write_folder(path, std::to_string(i));
  stop = true;
  reader.join();
  CHECK(looks > 0);
  CHECK(gone == 0);
  CHECK(read_file(path / "x") == "29");
  CHECK(entries(dir.path()) == 1);
}

TEST_CASE("a folder that a crash left aside comes back and other left-overs go") {
  test::TemporaryFolder dir;
  const Path path = dir.path() / "checkpoint", old = dir.path() / "checkpoint.tmp.old";
  write_folder(path, "whole");
  std::filesystem::rename(path, old);
  std::filesystem::create_directory(dir.path() / "checkpoint.tmp");
  { AtomicFolder abandoned(path); }
  CHECK(read_file(path / "x") == "whole");
  CHECK(entries(dir.path()) == 1);

  write_folder(old, "older");  // a crash before the removal: the final name is the newer one
  { AtomicFolder abandoned(path); }
  CHECK(read_file(path / "x") == "whole");
  CHECK(entries(dir.path()) == 1);
}

TEST_CASE("a folder that cannot be put in place leaves the old one") {
  test::TemporaryFolder dir;
  const Path path = dir.path() / "checkpoint";
  write_folder(path, "old");
  AtomicFolder folder(path);
  std::filesystem::remove_all(folder.path());
  CHECK_THROWS_AS(folder.commit(), Error);
  CHECK(read_file(path / "x") == "old");
}

TEST_CASE("temporary files of dead processes are swept and those of living ones stay") {
  test::TemporaryFolder dir;
  const Path path = dir.path() / "a.json";
  const Path dead = dir.path() / ("a.json.tmp." + std::to_string(dead_process()));
  const Path alive = dir.path() / "a.json.tmp.1", other = dir.path() / "a.json.tmp.keep";
  for (const Path& p : {dead, alive, other}) write_file(p, "half");
  write_file(path, "whole");
  CHECK_FALSE(std::filesystem::exists(dead));
  CHECK(std::filesystem::exists(alive));
  CHECK(std::filesystem::exists(other));
  CHECK(read_file(path) == "whole");
}
