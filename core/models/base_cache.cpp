#include "core/models/base_cache.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "kernels/quant/decode.h"

namespace qlora {
namespace {

namespace fs = std::filesystem;
constexpr const char* kExtension = ".base";

Path cache_folder(const Path& model) {
  return model / ".cache" / "qlora";
}

// Of the same model, whatever it is quantized to.
Json about_model(const ModelFolder& folder) {
  return {{"format", kBaseFormat}, {"config", hex(sha256_file(folder.path() / "config.json"))}};
}

Json about_base(const ModelFolder& folder, const LoadOptions& options) {
  Json about = about_model(folder);
  about["quant"] = name_of(options.quant.format);
  about["double_quant"] = options.quant.double_quant;
  about["block"] = options.quant.block;
  about["nested_block"] = options.quant.nested_block;
  about["type"] = name_of(options.type);
  about["dense_type"] = name_of(dense_type(options.type, options.operands));
  return about;
}

// Why a file that says `about` of itself does not serve who wants `wanted`; empty: it does.
std::string difference(const Json& about, const Json& wanted, const ModelFolder& folder) {
  for (const auto& [key, value] : wanted.items())
    if (about.value(key, Json()) != value)
      return fmt::format("made with another `{}`: {} instead of {}", key, about.value(key, Json()).dump(),
                         value.dump());
  if (about.value("stamp", "") == folder.stamp() || about.value("weights", "") == folder.content_hash())
    return "";
  return "made from other weights";
}

// The arrays of a quantized linear, below its name.
struct Slot {
  const char* name;
  Tensor FrozenWeight::Parts::*member;
  DType type;
};
constexpr Slot kSlots[] = {
    {".codes", &FrozenWeight::Parts::data, DType::u8},
    {".absmax", &FrozenWeight::Parts::absmax, DType::f32},
    {".absmax_codes", &FrozenWeight::Parts::absmax_codes, DType::u8},
    {".nested_absmax", &FrozenWeight::Parts::nested_absmax, DType::f32},
    {".code_map", &FrozenWeight::Parts::code_map, DType::f32},
};
constexpr const char* kNestedOffset = ".nested_offset";

// Elements of an array of a linear with n elements; 0: the format has none.
int64_t length_of(const Slot& slot, int64_t n, const QuantConfig& quant) {
  const int64_t blocks = block_count(n, quant.block);
  if (slot.member == &FrozenWeight::Parts::data) return packed_bytes(quant.format, n);
  if (slot.member == &FrozenWeight::Parts::absmax) return quant.double_quant ? 0 : blocks;
  if (!quant.double_quant) return 0;
  if (slot.member == &FrozenWeight::Parts::absmax_codes) return blocks;
  if (slot.member == &FrozenWeight::Parts::nested_absmax) return block_count(blocks, kNestedBlock);
  return 256;
}

}  // namespace

Path base_file(const Path& model, const LoadOptions& options) {
  const QuantConfig& q = options.quant;
  const DType dense = dense_type(options.type, options.operands);
  return cache_folder(model) / fmt::format("{}{}{}-{}{}{}", name_of(q.format), q.double_quant ? "-dq" : "",
                                           q.block == QuantConfig{}.block ? "" : fmt::format("-b{}", q.block),
                                           name_of(options.type),
                                           dense == options.type ? "" : fmt::format("-{}", name_of(dense)),
                                           kExtension);
}

std::unique_ptr<BaseCache> BaseCache::open(const ModelFolder& folder, const LoadOptions& options) {
  if (!options.cache || options.shapes_only || options.quant.format == Format::dense) return nullptr;
  std::unique_ptr<BaseCache> cache(new BaseCache(folder, options));
  cache->map();
  if (!cache->mapped()) cache->start_writing();
  return cache;
}

BaseCache::BaseCache(const ModelFolder& folder, const LoadOptions& options)
    : folder_(folder),
      quant_(options.quant),
      path_(base_file(folder.path(), options)),
      wanted_(about_base(folder, options).dump()),
      stamp_(folder.stamp()) {}
BaseCache::~BaseCache() = default;

void BaseCache::map() try {
  if (!fs::exists(path_)) return;
  auto image = std::make_shared<const TensorImage>(path_);
  const std::string why = difference(Json::parse(image->about()), Json::parse(wanted_), folder_);
  QLORA_CHECK(why.empty(), data, "{}: {}", path_.string(), why);
  image_ = std::move(image);
} catch (const std::exception& e) {
  warn("{}; the base is quantized again", e.what());
}

void BaseCache::start_writing() try {
  fs::create_directories(path_.parent_path());
  writer_ = std::make_unique<TensorImageWriter>(path_);
} catch (const std::exception& e) {
  give_up(e.what());
}

void BaseCache::give_up(const std::string& why) {
  writer_.reset();
  warn("the quantized base is not kept ({}): every start quantizes it again; base_cache: false says nothing",
       why);
}

Tensor BaseCache::find(Memory& memory, const std::string& name, const Shape& shape, DType type) const {
  const TensorView* view = image_ == nullptr ? nullptr : image_->find(name);
  if (view == nullptr || view->shape != shape || view->type != type) return {};
  return Tensor::over(memory, shape, type, view->bytes, image_);
}

std::optional<FrozenWeight::Parts> BaseCache::find_linear(Memory& memory, const std::string& name,
                                                          int64_t out, int64_t in) const {
  FrozenWeight::Parts parts;
  parts.format = quant_.format;
  parts.block = quant_.block;
  for (const Slot& slot : kSlots) {
    const int64_t n = length_of(slot, out * in, quant_);
    if (n == 0) continue;
    parts.*slot.member = find(memory, name + slot.name, {n}, slot.type);
    if (!(parts.*slot.member)) return std::nullopt;
  }
  if (!quant_.double_quant) return parts;
  const TensorView* offset = image_->find(name + kNestedOffset);
  if (offset == nullptr || offset->bytes.size() != sizeof parts.nested_offset) return std::nullopt;
  std::memcpy(&parts.nested_offset, offset->bytes.data(), sizeof parts.nested_offset);
  return parts;
}

void BaseCache::keep(const std::string& name, const Tensor& tensor) try {
  incomplete_ = incomplete_ || mapped();
  if (writer_ == nullptr) return;
  std::vector<std::byte> copy;
  std::span<const std::byte> bytes(tensor.as<const std::byte>(), tensor.bytes());
  if (!tensor.backend().host_memory()) {
    copy.resize(tensor.bytes());
    tensor.to_host(copy);
    bytes = copy;
  }
  writer_->add(name, tensor.type(), tensor.shape(), bytes);
} catch (const Error& e) {
  give_up(e.what());
}

void BaseCache::keep_linear(const std::string& name, const FrozenWeight::Parts& parts) try {
  for (const Slot& slot : kSlots)
    if (parts.*slot.member) keep(name + slot.name, parts.*slot.member);
  if (parts.absmax_codes && writer_ != nullptr)
    writer_->add(name + kNestedOffset, DType::f32, {1}, std::as_bytes(std::span(&parts.nested_offset, 1)));
} catch (const Error& e) {
  give_up(e.what());
}

void BaseCache::finish() try {
  if (incomplete_) {  // the loaders have changed, and nobody has raised kBaseFormat
    warn("{}: lacks what this program reads; it is removed, and made by the next start", path_.string());
    fs::remove(path_);
  }
  if (writer_ == nullptr) return;
  Json about = Json::parse(wanted_);
  about["stamp"] = stamp_;
  about["weights"] = folder_.hash_content();
  QLORA_CHECK(folder_.stamp() == stamp_, failure, "{}: the weights were written to while they were read",
              folder_.path().string());
  writer_->commit(about.dump());
  writer_.reset();
  info("the quantized base is kept in {} ({} bytes); the next start maps it", path_.string(),
       fs::file_size(path_));
} catch (const std::exception& e) {
  give_up(e.what());
}

std::vector<BaseFile> base_files(const ModelFolder& folder, bool every_byte) {
  std::vector<BaseFile> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(cache_folder(folder.path()), none)) {
    if (entry.path().extension() != kExtension) continue;
    BaseFile& file = files.emplace_back();
    file.path = entry.path();
    try {
      file.bytes = entry.file_size();
      const TensorImage image(file.path);
      file.trouble = difference(Json::parse(image.about()), about_model(folder), folder);
      if (every_byte) image.check_all();
    } catch (const std::exception& e) {
      file.trouble = e.what();
    }
  }
  std::sort(files.begin(), files.end(), [](auto& a, auto& b) { return a.path < b.path; });
  return files;
}

}  // namespace qlora
