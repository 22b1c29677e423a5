#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/io/safetensors.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

const std::vector<float> kOnes{1, 1}, kTwos{2, 2};

TensorOut tensor(const std::string& name, const std::vector<float>& values) {
  return {name, DType::f32, {static_cast<int64_t>(values.size())}, std::as_bytes(std::span(values))};
}

void index(const Path& folder, const Json& map) {
  write_file(folder / "model.safetensors.index.json", canonical({{"weight_map", map}}));
}

std::string message(const Path& folder) {
  try {
    ModelFolder model(folder);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::data);
    return e.what();
  }
  return "no error";
}

// QLORA_HOME for the length of a test.
class Home {
 public:
  explicit Home(const Path& path) {
    if (const char* old = std::getenv("QLORA_HOME")) old_ = old;
    ::setenv("QLORA_HOME", path.c_str(), 1);
  }
  ~Home() { old_.empty() ? ::unsetenv("QLORA_HOME") : ::setenv("QLORA_HOME", old_.c_str(), 1); }

 private:
  std::string old_;
};

}  // namespace

TEST_CASE("a model folder that cannot be used says what is missing and what to do") {
  test::TemporaryFolder temporary;
  const Path f = temporary.path() / "m";
  CHECK_THAT(message(f), Contains("does not exist"));
  std::filesystem::create_directory(f);
  CHECK_THAT(message(f), Contains("no config.json"));
  write_file(f / "config.json", "{}");
  CHECK_THAT(message(f), Contains("no weights"));
  CHECK_THAT(message(f / "config.json"), Contains("is a file"));
  std::filesystem::create_symlink("loop", temporary.path() / "loop");
  CHECK_THAT(message(temporary.path() / "loop"), Contains("loop: cannot be read as a model folder"));
  write_file(f / "pytorch_model-00001-of-00002.bin", "x");
  CHECK_THAT(message(f), Contains("pytorch_model-00001-of-00002.bin") && Contains("safe_serialization"));
  write_file(f / "m.gguf", "x");
  CHECK_THAT(message(f), Contains("qlora model import"));
}

TEST_CASE("shards are opened through the index and every lie of the index is found") {
  test::TemporaryFolder temporary;
  const Path f = temporary.path();
  write_file(f / "config.json", "{}");
  index(f, {{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  write_safetensors(f / "one.safetensors", std::vector<TensorOut>{tensor("a", kOnes)});
  CHECK_THAT(message(f), Contains("two.safetensors is missing") && Contains("`b`"));
  write_safetensors(f / "two.safetensors", std::vector<TensorOut>{tensor("b", kTwos)});
  ModelFolder model(f);
  CHECK(model.names() == std::vector<std::string>{"a", "b"});
  CHECK(to_floats(*model.find("b")) == kTwos);
  CHECK(model.find("c") == nullptr);

  write_safetensors(f / "two.safetensors", std::vector<TensorOut>{tensor("b", kTwos), tensor("a", kTwos)});
  CHECK_THAT(message(f), Contains("`a` is in two shards"));
  write_safetensors(f / "two.safetensors", std::vector<TensorOut>{tensor("c", kTwos)});
  CHECK_THAT(message(f), Contains("no tensor `b`"));
  index(f, {{"a", "../one.safetensors"}});
  CHECK_THAT(message(f), Contains("plain file name"));
  write_file(f / "model.safetensors.index.json", "{}");
  CHECK_THAT(message(f), Contains("weight_map"));
  index(f, Json::object());
  CHECK_THAT(message(f), Contains("index.json: `weight_map` is empty"));
}

TEST_CASE(
    "the content hash follows names and bytes and not file names and is cached until the file changes") {
  test::TemporaryFolder temporary;
  Home home(temporary.path() / "home");
  const Path one = temporary.path() / "one", two = temporary.path() / "two";
  for (const Path& f : {one, two}) {
    std::filesystem::create_directory(f);
    write_file(f / "config.json", "{}");
  }
  write_safetensors(one / "model.safetensors",
                    std::vector<TensorOut>{tensor("a", kOnes), tensor("b", kTwos)});
  index(two, {{"a", "x.safetensors"}, {"b", "y.safetensors"}});
  write_safetensors(two / "x.safetensors", std::vector<TensorOut>{tensor("a", kOnes)});
  write_safetensors(two / "y.safetensors", std::vector<TensorOut>{tensor("b", kTwos)});
  const std::string hash = ModelFolder(one).content_hash();
  CHECK(hash.size() == 64);
  CHECK(ModelFolder(two).content_hash() == hash);

  // A forged cache entry is believed as long as sizes and times match.
  for (const auto& entry : std::filesystem::directory_iterator(temporary.path() / "home/hashes")) {
    Json cache = parse_json(read_file(entry.path()), "cache");
    cache["sha256"] = "forged";
    write_file(entry.path(), canonical(cache));
  }
  CHECK(ModelFolder(one).content_hash() == "forged");
  const auto changed = [&](const TensorOut& second) {
    write_safetensors(one / "model.safetensors", std::vector<TensorOut>{tensor("a", kOnes), second});
    return ModelFolder(one).content_hash();
  };
  CHECK(changed(tensor("c", kTwos)) != hash);
  CHECK(changed(tensor("b", kOnes)) != hash);
  CHECK(changed(tensor("b", kTwos)) == hash);
}

TEST_CASE("weights that are only announced may have values to measure with, the same for all of them") {
  const std::vector<TensorInfo> tensors = {{"a", DType::f32, {2}}, {"b", DType::f32, {1}}};
  const ModelFolder none("config.json", tensors),
      filled("config.json", tensors, std::as_bytes(std::span(kTwos)));
  CHECK(none.find("a")->bytes.empty());
  CHECK(to_floats(*filled.find("a")) == kTwos);
  CHECK(to_floats(*filled.find("b")) == std::vector<float>{2});
  CHECK(filled.names() == none.names());
}
