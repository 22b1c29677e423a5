#include "core/models/base_cache.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <set>

#include "core/base/test_warnings.h"
#include "core/io/small_disk.h"
#include "core/models/tiny_model.h"
#include "core/ops/ops.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

struct Loaded {
  Memory memory;
  std::shared_ptr<const Model> model;
  Loaded(Backend& backend, const Path& folder, const LoadOptions& options)
      : memory(backend), model(load_model(folder, memory, options)) {}

  // Everything that is stored of it, and the last hidden states of a batch.
  std::vector<std::vector<std::byte>> everything() {
    std::vector<std::vector<std::byte>> all;
    auto add = [&](const Tensor& t) {
      all.emplace_back(t.bytes());
      if (t) t.to_host(all.back());
    };
    for (const LinearInfo& info : model->linears()) {
      const FrozenWeight& w = *model->find(info.name)->plain();
      const FrozenWeight::Parts& p = w.parts();
      for (const Tensor* t : {&p.data, &p.absmax, &p.absmax_codes, &p.nested_absmax, &p.code_map, &w.bias()})
        add(*t);
      const auto numbers =
          std::to_array<float>({p.nested_offset, static_cast<float>(p.block), static_cast<float>(p.operands),
                                static_cast<float>(p.format)});
      all.emplace_back(std::as_bytes(std::span(numbers)).begin(), std::as_bytes(std::span(numbers)).end());
    }
    add(model->head().plain()->parts().data);
    Batch batch = make_tiny_batch({{.examples = random_examples(1, {7, 12}, model->config().vocab_size)}});
    Context c{.backend = memory.backend(), .memory = memory, .axis = &batch.axis};
    add(model->hidden(c).value);
    return all;
  }
};

struct Lab {
  std::unique_ptr<Backend> backend = make_backend("auto");
  TemporaryFolder folder, home;
  Path model = folder.path() / "model";
  LoadOptions options{.quant = {.format = Format::nf4, .double_quant = true}, .cache = true};

  explicit Lab(const TinyConfig& config = {}) {
    ::setenv("QLORA_HOME", home.path().c_str(), 1);  // of hashes of content
    std::filesystem::create_directory(model);
    write_tiny_model(model, config);
  }
  Path base() const { return base_file(model, options); }
  auto load() { return Loaded(*backend, model, options).everything(); }
  auto load_afresh() {
    LoadOptions plain = options;
    plain.cache = false;
    return Loaded(*backend, model, plain).everything();
  }
};

// Writes over a file's bytes without changing its size, time and inode: whoever reads them, reads nonsense.
void ruin_unseen(const Path& path) {
  struct stat before {};
  REQUIRE(::stat(path.c_str(), &before) == 0);
  std::string text = read_file(path);
  for (size_t i = text.size() / 2; i < text.size(); ++i) text[i] = 0x7f;
  std::ofstream(path, std::ios::in | std::ios::out | std::ios::binary) << text;
  const timespec times[] = {before.st_atim, before.st_mtim};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

}  // namespace

TEST_CASE("a mapped base is the base quantized afresh to the last bit for every format and rounding") {
  const std::vector<TinyConfig> configs = {{.model_type = "llama", .biases = true},
                                           {.model_type = "qwen2", .tied = true},
                                           {.model_type = "gpt2", .hidden = 32, .tied = true}};
  for (const TinyConfig& config : configs) {
    for (Format format : kFormats) {
      for (bool double_quant : {false, true}) {
        for (Operands operands : {Operands::as_stored, Operands::bf16}) {
          INFO(config.model_type << " " << name_of(format) << " " << double_quant);
          Lab lab(config);
          lab.options.quant = {.format = format, .double_quant = double_quant};
          lab.options.operands = operands;
          Warnings warnings;
          const auto afresh = lab.load_afresh();
          CHECK_FALSE(std::filesystem::exists(lab.base()));
          Loaded first(*lab.backend, lab.model, lab.options);
          REQUIRE(std::filesystem::exists(lab.base()));
          ruin_unseen(lab.model / "model.safetensors");
          Loaded mapped(*lab.backend, lab.model, lab.options);
          CHECK(mapped.memory.used() == first.memory.used());
          CHECK(mapped.memory.used(Tag::weights) == mapped.model->bytes());
          CHECK(mapped.memory.held() <= first.memory.held());
          CHECK(first.everything() == afresh);
          CHECK(mapped.everything() == afresh);
          CHECK(warnings.texts.empty());
        }
      }
    }
  }
}

TEST_CASE("each way of quantizing and rounding has a file of its own") {
  std::set<Path> names;
  size_t ways = 0;
  for (Format format : kFormats)
    for (bool double_quant : {false, true})
      for (int64_t block : {64, 128})
        for (DType type : {DType::f32, DType::f64})
          for (Operands operands : {Operands::as_stored, Operands::bf16}) {
            LoadOptions options{.quant = {.format = format, .double_quant = double_quant, .block = block},
                                .type = type,
                                .operands = operands};
            names.insert(base_file("m", options));
            ++ways;
          }
  CHECK(names.size() == ways);
  CHECK(names.contains("m/.cache/qlora/nf4-dq-f32.base"));
}

TEST_CASE("bf16 and bf16_amx share a file, whoever wrote it, and keep their own products") {
  const TinyConfig config{.model_type = "qwen2", .tied = true};
  for (const auto& [writer, reader] :
       {std::pair(Operands::bf16, Operands::bf16_amx), std::pair(Operands::bf16_amx, Operands::bf16)}) {
    INFO(name_of(reader));
    Lab lab(config);
    lab.options.operands = writer;
    lab.load();
    const Path written = lab.base();
    REQUIRE(std::filesystem::exists(written));
    lab.options.operands = reader;
    CHECK(lab.base() == written);
    const auto afresh = lab.load_afresh();
    ruin_unseen(lab.model / "model.safetensors");
    CHECK(lab.load() == afresh);
  }
}

TEST_CASE("what a base file holds is frozen for its format version") {
  Lab lab;
  lab.load();
  Sha256 hash;
  const TensorImage image(lab.base());
  for (const auto& [name, view] : image.tensors()) hash.update(name).update(view.bytes);
  INFO("if this was meant: raise kBaseFormat, so that files of older programs are made anew");
  CHECK(kBaseFormat == 1);
  CHECK(hex(hash.finish()) == "5a9b9097557c7b1979ec015f786f5a9bde894f4ad9df6b85e45e7bd7147a4522");
}

TEST_CASE("a base that is cut or damaged or foreign or stale is said in one line and made anew") {
  Lab lab, other({.seed = 2});
  other.load();
  const auto right = lab.load_afresh();
  lab.load();
  const std::string whole = read_file(lab.base());
  std::string bent = whole;
  bent[5000] = static_cast<char>(bent[5000] ^ 1);
  LoadOptions fp4 = lab.options;
  fp4.quant.format = Format::fp4;
  Loaded(*lab.backend, lab.model, fp4);
  const std::map<std::string, std::pair<std::string, std::string>> cases = {
      {"empty", {"", "not a tensor image"}},
      {"cut", {whole.substr(0, whole.size() / 3), "cut short"}},
      {"damaged", {bent, "damaged"}},
      {"of other weights", {read_file(other.base()), "made from other weights"}},
      {"of another format", {read_file(base_file(lab.model, fp4)), "made with another `quant`"}}};
  for (const auto& [name, content] : cases) {
    INFO(name);
    write_file(lab.base(), content.first);
    const bool good_for_others = name == "of another format";
    CHECK(base_files(ModelFolder(lab.model), false).back().trouble.empty() == good_for_others);
    Warnings warnings;
    CHECK(lab.load() == right);
    REQUIRE(warnings.texts.size() == 1);
    CHECK_THAT(warnings.texts[0], Contains(lab.base().string()) && Contains(content.second) &&
                                      Contains("the base is quantized again"));
    CHECK(lab.load() == right);
    CHECK(warnings.texts.size() == 1);
    CHECK(base_files(ModelFolder(lab.model), true).back().trouble.empty());
  }
}

TEST_CASE("weights or a config that were written after the base make it anew and a copied folder does not") {
  Lab lab;
  lab.load();
  const Path copy = lab.folder.path() / "copy";
  std::filesystem::copy(lab.model, copy, std::filesystem::copy_options::recursive);
  Warnings warnings;
  const auto before = lab.load();
  CHECK(Loaded(*lab.backend, copy, lab.options).everything() == before);
  CHECK(warnings.texts.empty());

  write_tiny_model(lab.model, {.seed = 9});
  const auto after = lab.load();
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Contains("made from other weights"));
  CHECK(after == lab.load_afresh());
  CHECK_FALSE(after == before);

  std::string config = read_file(lab.model / "config.json");
  write_file(lab.model / "config.json", config + "\n");
  CHECK(lab.load() == after);
  REQUIRE(warnings.texts.size() == 2);
  CHECK_THAT(warnings.texts[1], Contains("made with another `config`"));
}

TEST_CASE("where no base can be written that is said once and loading goes on") {
  Lab lab;
  write_file(lab.model / ".cache", "a file in the place of the folder");
  Warnings warnings;
  CHECK(lab.load() == lab.load_afresh());
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Contains("is not kept") && Contains(".cache"));
}

TEST_CASE("a disk that becomes full while a base is written leaves none and loading goes on") {
  SmallDisk disk("900k");
  if (!disk.mounted()) return;
  Lab lab;
  lab.model = disk.path();
  write_tiny_model(lab.model, {.vocab = 3000});
  Warnings warnings;
  CHECK(lab.load() == lab.load_afresh());
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Contains("No space left"));
  CHECK(std::filesystem::is_empty(lab.base().parent_path()));
}

TEST_CASE("nothing is kept of a base that is not quantized or only planned or where nobody asked") {
  Lab lab;
  LoadOptions dense = lab.options, planned = lab.options, unasked = lab.options;
  dense.quant = {};
  planned.shapes_only = true;
  unasked.cache = false;
  for (const LoadOptions& options : {dense, planned, unasked}) {
    Memory memory(*lab.backend);
    load_model(lab.model, memory, options);
    CHECK_FALSE(std::filesystem::exists(lab.model / ".cache"));
  }
  CHECK(base_files(ModelFolder(lab.model), false).empty());
}
