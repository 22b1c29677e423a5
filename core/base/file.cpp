#include "core/base/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/base/check.h"

namespace qlora {
namespace {

void flush_folder(const Path& folder) {
  int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

[[noreturn]] void fail_write(const Path& path, int error) {
  fail(ErrorKind::failure, "cannot write {}: {}", path.string(), std::strerror(error));
}

// What a killed process left of writing `path`: files called `path`.tmp.PID whose process is gone.
void sweep_leftovers(const Path& path) {
  const std::string prefix = path.filename().string() + ".tmp.";
  std::error_code error;
  std::filesystem::directory_iterator entries(path.has_parent_path() ? path.parent_path() : ".", error), end;
  for (; !error && entries != end; entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    pid_t pid = 0;
    const char* last = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + prefix.size(), last, pid);
    if (parsed.ec != std::errc() || parsed.ptr != last || pid <= 0) continue;
    if (::kill(pid, 0) != 0 && errno == ESRCH) ::unlink(entries->path().c_str());
  }
}

// Where the folder of the final name waits while another takes its place.
Path aside(const Path& final_path) {
  return Path(final_path) += ".tmp.old";
}

// Puts `fresh` in the place of `final_path`. Where the file system cannot exchange two names in one step, the
// old folder waits under another name, from which it comes back on failure and after a crash.
int replace_folder(const Path& fresh, const Path& final_path) {
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) == 0) return 0;
  if (errno != ENOENT && errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) return errno;
  const Path old = aside(final_path);
  const bool waits = errno != ENOENT && ::rename(final_path.c_str(), old.c_str()) == 0;
  if (::rename(fresh.c_str(), final_path.c_str()) == 0) return 0;
  const int error = errno;
  if (waits) ::rename(old.c_str(), final_path.c_str());
  return error;
}

// Where a huge page of the file is one of the address space too: the system maps it with one entry.
void* map_file(int fd, size_t size) {
  constexpr size_t kHugePage = size_t{2} << 20, kWorthIt = size_t{16} << 20;
  if (size < kWorthIt) return ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const size_t room = size + kHugePage;
  void* all = ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return all;
  const auto begin = reinterpret_cast<uintptr_t>(all);
  const uintptr_t at = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t end = (at + size + page - 1) / page * page;
  void* p = ::mmap(reinterpret_cast<void*>(at), size, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
  const int error = errno;
  if (p == MAP_FAILED) {
    ::munmap(all, room);
    errno = error;
    return p;
  }
  if (at > begin) ::munmap(all, at - begin);
  if (begin + room > end) ::munmap(reinterpret_cast<void*>(end), begin + room - end);
  return p;
}

}  // namespace

MappedFile::MappedFile(const Path& path) : path_(path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(ErrorKind::data, "cannot open {}: {}", path.string(), std::strerror(errno));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    fail(ErrorKind::data, "cannot read {}: not a regular file", path.string());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* p = map_file(fd, size_);
    int error = errno;
    ::close(fd);
    if (p == MAP_FAILED) fail(ErrorKind::data, "cannot map {}: {}", path.string(), std::strerror(error));
    data_ = static_cast<const std::byte*>(p);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}
MappedFile::MappedFile(MappedFile&& o) noexcept
    : path_(std::move(o.path_)), data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
MappedFile& MappedFile::operator=(MappedFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  return *this;
}

void MappedFile::will_need() const noexcept {
  if (data_ == nullptr) return;
  // In this order: what is read ahead comes by huge pages.
  ::madvise(const_cast<std::byte*>(data_), size_, MADV_HUGEPAGE);
  ::madvise(const_cast<std::byte*>(data_), size_, MADV_WILLNEED);
}

void drop_pages(std::span<const std::byte> mapped) noexcept {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(mapped.data());
  // Pages shared with a neighbour go with whoever is dropped last.
  const uintptr_t first = begin / page * page, last = (begin + mapped.size() + page - 1) / page * page;
  if (mapped.data() != nullptr && last > first)
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

std::string read_file(const Path& path) {
  if (path.extension() != ".gz") return std::string(MappedFile(path).text());
  gzFile f = ::gzopen(path.c_str(), "rb");
  if (f == nullptr) fail(ErrorKind::data, "cannot open {}: {}", path.string(), std::strerror(errno));
  std::string out;
  char buffer[1 << 16];
  int n;
  while ((n = ::gzread(f, buffer, sizeof buffer)) > 0) out.append(buffer, static_cast<size_t>(n));
  int code = 0;
  std::string message = ::gzerror(f, &code);
  int closed = ::gzclose(f);
  if (n < 0 || closed != Z_OK)
    fail(ErrorKind::data, "cannot unpack {}: {}", path.string(), message.empty() ? "truncated" : message);
  return out;
}

AtomicFile::AtomicFile(const Path& path) : path_(path), temporary_(path) {
  sweep_leftovers(path_);
  temporary_ += fmt::format(".tmp.{}", ::getpid());
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_write(path_, errno);
}
AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::discard() noexcept {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
  fd_ = -1;
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int error = errno;
      discard();
      fail_write(path_, error);
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}
void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit() {
  int error = ::fsync(fd_) != 0 ? errno : 0;
  if (::close(std::exchange(fd_, -1)) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(temporary_.c_str(), path_.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary_.c_str());
    fail_write(path_, error);
  }
  flush_folder(path_.parent_path());
}

void write_file(const Path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

AtomicFolder::AtomicFolder(const Path& final_path) : final_(final_path), temporary_(final_path) {
  temporary_ += ".tmp";
  const Path old = aside(final_);
  std::error_code error;
  // Left by a crash in the middle of commit(): the only complete folder when there is none of the final name.
  if (std::filesystem::exists(final_, error))
    std::filesystem::remove_all(old, error);
  else
    ::rename(old.c_str(), final_.c_str());
  std::filesystem::remove_all(temporary_, error);
  std::filesystem::create_directories(temporary_, error);
  if (error) fail(ErrorKind::failure, "cannot create {}: {}", temporary_.string(), error.message());
}
AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!done_) std::filesystem::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  flush_folder(temporary_);
  if (const int error = replace_folder(temporary_, final_); error != 0) fail_write(final_, error);
  done_ = true;
  flush_folder(final_.parent_path());
  // Only now that the new folder is safe: the old one, under the name that it got from replace_folder().
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
  std::filesystem::remove_all(aside(final_), ignored);
}

Path qlora_home() {
  const char* home = std::getenv("QLORA_HOME");
  return home != nullptr && *home != '\0' ? Path(home) : Path(".cache/qlora");
}

}  // namespace qlora
