#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/base/log.h"
#include "experiments/spec.h"

namespace qlora {
namespace {

constexpr int64_t kWorthRemembering = 64 << 20;  // bytes; smaller files are hashed each time

Path memory_file() {
  return qlora_home() / "content_hashes.json";
}

Json remembered_hashes() {
  try {
    if (!std::filesystem::exists(memory_file())) return Json::object();
    Json json = parse_json(read_file(memory_file()), memory_file().string());
    return json.is_object() ? json : Json::object();
  } catch (const Error&) {
    return Json::object();  // it is only a memory: what it lost is computed again
  }
}

// Changes whenever the file is written or replaced.
std::string stamp(const struct stat& info) {
  return fmt::format("{}-{}-{}.{:09}", info.st_ino, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

std::string file_hash(const Path& path) {
  struct stat info {};
  QLORA_CHECK(::stat(path.c_str(), &info) == 0, data, "no such file: {}", path.string());
  if (info.st_size < kWorthRemembering) return hex(sha256_file(path));
  std::string name = std::filesystem::absolute(path).lexically_normal().string();
  Json known = remembered_hashes();
  if (auto it = known.find(name); it != known.end() && it->value("stamp", "") == stamp(info))
    return it->value("sha256", "");
  std::string hash = hex(sha256_file(path));
  known[name] = {{"stamp", stamp(info)}, {"sha256", hash}};
  try {
    std::filesystem::create_directories(qlora_home());
    write_file(memory_file(), known.dump(1));
  } catch (const std::exception& e) {
    log(LogLevel::debug, e.what());  // a read-only place: hashed again next time
  }
  return hash;
}

std::set<std::string> weight_files(const Path& folder) {
  Path index = folder / "model.safetensors.index.json";
  if (!std::filesystem::exists(index)) {
    QLORA_CHECK(std::filesystem::exists(folder / "model.safetensors"), data,
                "{}: no weights; expected model.safetensors or model.safetensors.index.json",
                folder.string());
    return {"model.safetensors"};
  }
  std::set<std::string> files;
  Json json = parse_json(read_file(index), index.string());
  QLORA_CHECK(json.contains("weight_map") && json["weight_map"].is_object(), data, "{}: no `weight_map`",
              index.string());
  for (const auto& [tensor, file] : json["weight_map"].items()) files.insert(file.get<std::string>());
  return files;
}

}  // namespace

std::string model_content_hash(const Path& folder) {
  QLORA_CHECK(std::filesystem::is_directory(folder), data, "no model folder {}", folder.string());
  Path config = folder / "config.json";
  QLORA_CHECK(std::filesystem::exists(config), data, "{}: no config.json; this is no model folder",
              folder.string());
  Sha256 all;
  all.update(fmt::format("config.json {}\n", file_hash(config)));
  for (const std::string& name : weight_files(folder))
    all.update(fmt::format("{} {}\n", name, file_hash(folder / name)));
  return hex(all.finish());
}

}  // namespace qlora
