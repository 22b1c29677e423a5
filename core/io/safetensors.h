#pragma once
// The safetensors format: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets}},
// data. Reading maps the file; nothing is copied until asked for. Every offset is checked against shape, type
// and file size; names given twice, overlaps, holes and trailing bytes are refused.

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/file.h"

namespace qlora {

struct TensorView {
  DType type = DType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // valid as long as the file object; may be misaligned
  int64_t size() const;
  size_t stored_bytes() const { return static_cast<size_t>(size()) * size_of(type); }
  // Elements [lo, hi) of the flattened tensor. REQUIRES: they are there.
  TensorView elements(int64_t lo, int64_t hi) const;
};

// Whether to_floats() reads it.
constexpr bool is_floating(DType type) {
  return type == DType::f32 || type == DType::f64 || type == DType::bf16 || type == DType::f16;
}
// Converts a view of f32, f64, bf16 or f16 to floats. Throws Error(data) for other types.
// REQUIRES: room for its elements.
void to_floats(const TensorView&, std::span<float> out);
std::vector<float> to_floats(const TensorView&);

class SafetensorsFile {
 public:
  // Throws Error(data) naming path, tensor, expected and found.
  explicit SafetensorsFile(const Path&);
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Throws Error(data) with the nearest name.
  const TensorView& at(std::string_view name) const;
  const TensorView* find(std::string_view name) const;
  const Path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

// What a tensor to write is called, and its size.
struct TensorInfo {
  std::string name;
  DType type = DType::f32;
  std::vector<int64_t> shape;
};

// Writes a file tensor by tensor, so that they need not be in memory together: beside the final name, flushed
// and renamed by commit(). Tensors lie in the order of their names, the data starts 8-byte aligned.
class SafetensorsWriter {
 public:
  // Throws Error(failure) for a name given twice.
  SafetensorsWriter(const Path&, std::vector<TensorInfo>,
                    const std::map<std::string, std::string>& metadata = {});
  // The tensors in the order in which write() must get them.
  const std::vector<TensorInfo>& order() const { return order_; }
  // The next tensor. Throws Error(failure) when the bytes are not its size.
  void write(std::span<const std::byte>);
  // REQUIRES: every tensor is written.
  void commit();

 private:
  Path path_;
  std::vector<TensorInfo> order_;
  size_t next_ = 0;
  AtomicFile file_;
};

// One tensor to write; the bytes must stay valid during write_safetensors.
struct TensorOut {
  std::string name;
  DType type = DType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};
// SafetensorsWriter in one call.
void write_safetensors(const Path&, std::span<const TensorOut>,
                       const std::map<std::string, std::string>& metadata = {});

// What of a file is in memory on each thread that hashes it.
inline constexpr size_t kReadBytes = size_t{4} << 20;

// The weights of a Hugging Face folder: model.safetensors, or the shards named by
// model.safetensors.index.json.
class ModelFolder {
 public:
  // Throws Error(data) when the folder, its config.json, or its weights are missing, with what to do.
  explicit ModelFolder(const Path& folder);
  // Weights that are not there, of a model of which only `config_json` is. For planning, views have no bytes;
  // for measuring, all begin with `values`, which stay valid and may be a mapped file.
  // REQUIRES: values for the largest tensor, or none.
  ModelFolder(const Path& config_json, const std::vector<TensorInfo>&,
              std::span<const std::byte> values = {});
  const Path& path() const { return path_; }
  std::vector<std::string> names() const;  // sorted
  const TensorView* find(std::string_view name) const;
  // SHA-256 over names, types, shapes and bytes of all tensors: the content, whatever the files are called.
  // REQUIRES, as the next two: the weights are there.
  // Cached beside the weights' (size, mtime) in ${QLORA_HOME}/hashes, so that asking again is instant.
  std::string content_hash() const;
  // The same, read anew and remembered nowhere.
  std::string hash_content() const;
  // Names, sizes, times and inodes of the weights' files, as text: equal as long as nobody has written or
  // replaced one of them.
  std::string stamp() const;

 private:
  Path path_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorView, std::less<>> announced_;
};

}  // namespace qlora
