#pragma once
// A file of tensors that is computed from where it lies: mapped read-only, every tensor 256-byte aligned,
// which safetensors does not promise. Little-endian:
//
//   0          "QLORATENSORS1\n" and zeros, 4096 bytes
//   4096       the tensors in the order of writing, each at a multiple of 256, zeros between them
//   ...        the index, JSON: {"about": any object, "data_sha256", "sample_sha256",
//              "tensors": {name: [type, shape, offset]}}
//   size - 64  u64 offset of the index, u64 its length, its SHA-256, "QLORATENSORS1\n" and zeros, 16 bytes
//
// What opening checks: both ends, the index's hash, that every tensor lies in the file, and a hash over a
// sample of its bytes (SampledHash). A file that is cut, was copied in part or is of another kind is found
// so, in milliseconds whatever its size. Single bits that a disk has lost are not: reading everything at each
// start would cost as much as making the file again, and nobody reads the model's own file twice either;
// check_all() does it when asked. Whoever writes the file leaves no half of it behind (AtomicFile).

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/hash.h"
#include "core/io/safetensors.h"

namespace qlora {

// SHA-256 over the first 4 KiB of every 4 MiB of each array, and its last 4 KiB: small arrays are covered
// whole.
class SampledHash {
 public:
  void update(std::span<const std::byte> array);
  Digest finish() { return hash_.finish(); }  // once

 private:
  Sha256 hash_;
};

class TensorImage {
 public:
  // Asks the system to read ahead. Throws Error(data) that says what is wrong with the file.
  explicit TensorImage(const Path&);
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const TensorView* find(std::string_view name) const;
  const std::string& about() const { return about_; }  // canonical JSON: what the writer said
  const Path& path() const { return file_.path(); }
  size_t bytes() const { return file_.bytes().size(); }
  // Reads everything. Throws Error(data) when a byte of a tensor has changed since it was written.
  void check_all() const;

 private:
  void read_index(std::span<const std::byte> index);
  // In the order of writing.
  std::vector<std::span<const std::byte>> arrays() const;

  MappedFile file_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::string about_, data_sha256_, sample_sha256_;
};

// Writes an image tensor by tensor, beside the final name until commit().
class TensorImageWriter {
 public:
  // Throws Error(failure) where the file cannot be made, as add() and commit() do when the disk is full.
  explicit TensorImageWriter(const Path&);
  ~TensorImageWriter();
  // REQUIRES: the name is new; the bytes fill type and shape.
  void add(const std::string& name, DType, const std::vector<int64_t>& shape, std::span<const std::byte>);
  // `about`: a JSON object. Nothing can be added afterwards.
  void commit(const std::string& about);

 private:
  struct Index;
  void pad_to(size_t multiple);
  void write(std::span<const std::byte>);
  void flush_piece();

  AtomicFile file_;
  std::vector<std::byte> piece_;  // written, but not to the file yet
  size_t at_ = 0;
  Sha256 data_;
  SampledHash sample_;
  std::unique_ptr<Index> index_;
};

}  // namespace qlora
