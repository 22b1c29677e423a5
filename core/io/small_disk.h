#pragma once
// For tests: a file system that is soon full.

#include <sys/mount.h>

#include <cstdio>
#include <string>

#include "core/base/test_data.h"

namespace qlora::test {

// A file system in memory of some size ("256k"), mounted on a folder of its own and removed with the object.
// Mounting is for root alone: otherwise mounted() is false, and the line that counts the test as skipped is
// printed.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& size)
      : mounted_(::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0) {
    if (!mounted_) std::printf("SKIPPED: cannot mount a small file system (not root)\n");
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool mounted() const { return mounted_; }
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
  bool mounted_;
};

}  // namespace qlora::test
