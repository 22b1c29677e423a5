#pragma once
// The quantized base on disk, beside the model: the first start that quantizes writes it, the next ones map
// it read-only, so that no dense weight is read and several processes share its pages. One file for each way
// of quantizing and rounding, MODEL/.cache/qlora/nf4-dq-f32.base, a TensorImage with everything that a load
// has stored: codes, scales, embedding, head, norms and biases, byte for byte.
//
// A file is used when it was made with the same options and format version, from the same config.json and the
// same weights: weights of the same stamp (name, size, time and inode of the files), or else of the same
// content hash. Anything else, a cut or damaged file too, is said in one line and made anew. Where nothing
// can be written that is said once, and loading goes on without.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io/tensor_image.h"
#include "core/models/model.h"

namespace qlora {

// Raised when quantize() or the loaders store other bytes, or the same under other names. A test freezes
// them.
inline constexpr int kBaseFormat = 1;

class BaseCache {
 public:
  // Maps the file, or prepares to write it. Null when the options ask for none (LoadOptions::cache), nothing
  // is quantized, or no weight is read. Trouble is logged as a warning; throws for the model's own files
  // alone.
  static std::unique_ptr<BaseCache> open(const ModelFolder&, const LoadOptions&);
  ~BaseCache();

  bool mapped() const { return image_ != nullptr; }
  // From the mapped file; empty when there is none, or it lacks the tensor in this form.
  Tensor find(Memory&, const std::string& name, const Shape&, DType) const;
  // Likewise a quantized linear's parts; nothing when one is lacking.
  std::optional<FrozenWeight::Parts> find_linear(Memory&, const std::string& name, int64_t out,
                                                 int64_t in) const;
  // What was loaded otherwise, to be kept. REQUIRES: the weights are those of the options of open().
  void keep(const std::string& name, const Tensor&);
  void keep_linear(const std::string& name, const FrozenWeight::Parts&);
  // Everything is loaded: a file that is being written is completed, one that lacked something removed.
  void finish();

 private:
  BaseCache(const ModelFolder&, const LoadOptions&);
  void map();
  void start_writing();
  void give_up(const std::string& why);

  const ModelFolder& folder_;
  QuantConfig quant_;
  Path path_;
  std::string wanted_, stamp_;  // what the file must say of itself; of the weights, before they were read
  std::shared_ptr<const TensorImage> image_;
  std::unique_ptr<TensorImageWriter> writer_;
  bool incomplete_ = false;
};

// Where the base of a model folder under these options lies, or would.
Path base_file(const Path& model, const LoadOptions&);

// A file that lies there.
struct BaseFile {
  Path path;
  size_t bytes = 0;
  std::string trouble;  // why it would not be used; empty: it would
};
// Every one that belongs to a model; reads them whole with `every_byte`.
std::vector<BaseFile> base_files(const ModelFolder&, bool every_byte);

}  // namespace qlora
