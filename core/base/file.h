#pragma once
// Files: mapped reading, whole reading (plain or gzip), and writing that leaves either the old file or the
// whole new one.

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace qlora {

using Path = std::filesystem::path;

// A file mapped read-only for as long as the object lives. Throws Error(data) naming the path and the reason.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const Path&);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const Path& path() const { return path_; }
  // Wishes: that the system reads the file ahead, and maps it by huge pages where it can.
  void will_need() const noexcept;

 private:
  Path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Says that a part of a mapped file will not be read again soon: its pages no longer count as this process'
// memory. Reading it again is correct, and reads the disk (or its cache).
void drop_pages(std::span<const std::byte> mapped) noexcept;

// The whole content of a file; a name ending in .gz is unpacked. Throws Error(data).
std::string read_file(const Path&);

// Writes a file beside `path` and, on commit, flushes it to the disk and renames it over `path`. Without
// commit nothing is left behind, and what a killed process left is removed by the next AtomicFile of the same
// path. A full disk or any other failure throws Error(failure) with the path and the reason.
class AtomicFile {
 public:
  explicit AtomicFile(const Path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte>);
  void write(std::string_view);
  void commit();

 private:
  void discard() noexcept;
  Path path_, temporary_;
  int fd_ = -1;
};

// AtomicFile in one call.
void write_file(const Path&, std::string_view content);

// A folder that is written beside its final name (`final` + ".tmp"), then flushed and renamed as a whole. An
// older folder of the final name is replaced in one step, and removed only after that: whenever the process
// is killed, a complete folder of the final name is there. (A file system that cannot exchange two names
// leaves a moment without it; the old folder then lies beside it as `final` + ".tmp.old", from where the next
// AtomicFolder of the name puts it back.) Without commit the temporary folder is removed. One writer for a
// name at a time.
class AtomicFolder {
 public:
  explicit AtomicFolder(const Path& final_path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const Path& path() const { return temporary_; }  // write the files here
  void commit();

 private:
  Path final_, temporary_;
  bool done_ = false;
};

// ${QLORA_HOME}, or .cache/qlora below the working directory: downloads and imports.
Path qlora_home();

}  // namespace qlora
