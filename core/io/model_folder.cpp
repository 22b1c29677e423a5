#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/parallel.h"
#include "core/io/safetensors.h"

namespace qlora {
namespace {

namespace fs = std::filesystem;
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// What to say about a folder without safetensors, by what else lies in it.
[[noreturn]] void fail_without_weights(const Path& folder) {
  std::vector<std::string> pickles, ggufs;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (name.starts_with("pytorch_model") && name.find(".bin") != std::string::npos) pickles.push_back(name);
    if (entry.path().extension() == ".gguf") ggufs.push_back(name);
  }
  std::sort(ggufs.begin(), ggufs.end());
  if (!ggufs.empty())
    fail(ErrorKind::data, "{}: no {}; import {} first: qlora model import {} OUT_DIR", folder.string(),
         kSingle, ggufs[0], (folder / ggufs[0]).string());
  if (!pickles.empty())
    fail(ErrorKind::data,
         "{}: only {}, a Python pickle, which is not read because it can run code; save the model again with "
         "`save_pretrained(DIR, safe_serialization=True)` to get {}",
         folder.string(), *std::min_element(pickles.begin(), pickles.end()), kSingle);
  fail(ErrorKind::data, "{}: no weights: neither {} nor {}", folder.string(), kSingle, kIndex);
}

// The shards that an index names, with the check that each tensor is where the index says.
std::vector<std::unique_ptr<SafetensorsFile>> open_shards(const Path& folder) {
  const Path path = folder / kIndex;
  const Json index = parse_json(read_file(path), path.string());
  QLORA_CHECK(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(), data,
              "{}: no object `weight_map`", path.string());
  std::map<std::string, std::unique_ptr<SafetensorsFile>> shards;
  for (const auto& [tensor, value] : index["weight_map"].items()) {
    QLORA_CHECK(
        value.is_string() && Path(value.get<std::string>()).filename() == Path(value.get<std::string>()),
        data, "{}: the file of tensor `{}` is not a plain file name: {}", path.string(), tensor,
        value.dump());
    const auto name = value.get<std::string>();
    auto& shard = shards[name];
    if (!shard) {
      QLORA_CHECK(fs::exists(folder / name), data,
                  "{}: shard {} is missing: the index places tensor `{}` in it", folder.string(), name,
                  tensor);
      shard = std::make_unique<SafetensorsFile>(folder / name);
    }
    QLORA_CHECK(shard->find(tensor) != nullptr, data, "{}: no tensor `{}`, though the index places it there",
                (folder / name).string(), tensor);
  }
  QLORA_CHECK(!shards.empty(), data, "{}: `weight_map` is empty: no weights", path.string());
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  for (auto& [name, shard] : shards) files.push_back(std::move(shard));
  return files;
}

void check_unique(const std::vector<std::unique_ptr<SafetensorsFile>>& files) {
  std::map<std::string_view, const SafetensorsFile*> seen;
  for (const auto& file : files)
    for (const auto& [name, view] : file->tensors()) {
      auto [at, fresh] = seen.emplace(name, file.get());
      QLORA_CHECK(fresh, data, "tensor `{}` is in two shards: {} and {}", name, at->second->path().string(),
                  file->path().string());
    }
}

struct stat status_of(const Path& file) {
  struct stat info {};
  QLORA_CHECK(::stat(file.c_str(), &info) == 0, data, "{} is gone", file.string());
  return info;
}

// Sizes and times of the files, by which a cached hash is recognised.
Json fingerprint(const std::vector<std::unique_ptr<SafetensorsFile>>& files) {
  Json out = Json::array();
  for (const auto& file : files) {
    const struct stat info = status_of(file->path());
    out.push_back({fs::absolute(file->path()).lexically_normal().string(), static_cast<int64_t>(info.st_size),
                   static_cast<int64_t>(info.st_mtim.tv_sec), static_cast<int64_t>(info.st_mtim.tv_nsec)});
  }
  return out;
}

// The cached hash; empty when there is none for these files or it cannot be read.
std::string cached_hash(const Path& path, const Json& files) {
  std::error_code unreadable;
  if (!fs::exists(path, unreadable)) return {};
  try {
    const Json cache = parse_json(read_file(path), path.string());
    if (cache.at("files") == files) return cache.at("sha256").get<std::string>();
  } catch (const std::exception& e) {
    warn("ignoring the cached hash: {}", e.what());
  }
  return {};
}

// Of mapped bytes, of which only a little is in memory at a time.
Digest sha256_dropping(std::span<const std::byte> mapped) {
  Sha256 sum;
  for (size_t at = 0; at < mapped.size(); at += kReadBytes) {
    const std::span<const std::byte> part = mapped.subspan(at, std::min(kReadBytes, mapped.size() - at));
    sum.update(part);
    drop_pages(part);
  }
  return sum.finish();
}

}  // namespace

ModelFolder::ModelFolder(const Path& folder) try : path_(folder) {
  QLORA_CHECK(fs::exists(folder), data, "model folder {} does not exist", folder.string());
  QLORA_CHECK(fs::is_directory(folder), data,
              "{} is a file; a model is a folder with config.json and {} (a .gguf file: qlora model import "
              "FILE OUT_DIR)",
              folder.string(), kSingle);
  QLORA_CHECK(fs::exists(folder / "config.json"), data, "{}: no config.json: not a Hugging Face model folder",
              folder.string());
  if (fs::exists(folder / kSingle))
    files_.push_back(std::make_unique<SafetensorsFile>(folder / kSingle));
  else if (fs::exists(folder / kIndex))
    files_ = open_shards(folder);
  else
    fail_without_weights(folder);
  check_unique(files_);
} catch (const fs::filesystem_error& e) {
  fail(ErrorKind::data, "{}: cannot be read as a model folder: {}", folder.string(), e.code().message());
}

ModelFolder::ModelFolder(const Path& config_json, const std::vector<TensorInfo>& tensors,
                         std::span<const std::byte> values)
    : path_(config_json.parent_path()) {
  for (const TensorInfo& tensor : tensors) {
    TensorView& view = announced_[tensor.name] = {.type = tensor.type, .shape = tensor.shape, .bytes = {}};
    if (!values.empty()) view.bytes = values.first(view.stored_bytes());
  }
}

std::vector<std::string> ModelFolder::names() const {
  std::vector<std::string> out;
  for (const auto& [name, view] : announced_) out.push_back(name);
  for (const auto& file : files_)
    for (const auto& [name, view] : file->tensors()) out.push_back(name);
  std::sort(out.begin(), out.end());
  return out;
}

const TensorView* ModelFolder::find(std::string_view name) const {
  for (const auto& file : files_)
    if (const TensorView* view = file->find(name)) return view;
  auto announced = announced_.find(name);
  return announced == announced_.end() ? nullptr : &announced->second;
}

std::string ModelFolder::content_hash() const {
  const Json files = fingerprint(files_);
  const Path cache = qlora_home() / "hashes" / (hex(sha256(canonical(files[0][0]))).substr(0, 32) + ".json");
  if (std::string hash = cached_hash(cache, files); !hash.empty()) return hash;
  const std::string hash = hash_content();
  std::error_code ignored;
  fs::create_directories(cache.parent_path(), ignored);
  try {
    write_file(cache, canonical({{"files", files}, {"sha256", hash}}));
  } catch (const Error& e) {
    warn("the model's hash is not cached: {}", e.what());
  }
  return hash;
}

std::string ModelFolder::hash_content() const {
  const std::vector<std::string> all = names();
  std::vector<Digest> digests(all.size());
  parallel_for(static_cast<int64_t>(all.size()), 1, [&](int64_t lo, int64_t hi) {
    for (auto i = static_cast<size_t>(lo); i < static_cast<size_t>(hi); ++i) {
      digests[i] = sha256_dropping(find(all[i])->bytes);
    }
  });
  Json content = Json::array();
  for (size_t i = 0; i < all.size(); ++i) {
    const TensorView* view = find(all[i]);
    content.push_back({all[i], name_of(view->type), view->shape, hex(digests[i])});
  }
  return hex(sha256(canonical(content)));
}

std::string ModelFolder::stamp() const {
  std::string out;
  for (const auto& file : files_) {
    const struct stat info = status_of(file->path());
    out += fmt::format("{} {} {}.{:09} {}\n", file->path().filename().string(), info.st_size,
                       info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ino);
  }
  return out;
}

}  // namespace qlora
