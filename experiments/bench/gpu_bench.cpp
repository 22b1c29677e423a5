// Whole steps on a GPU: models of real shapes with weights of no meaning, trained and asked for tokens by the
// same code as any other. scripts/gpu_check.sh runs it, one process a model, and reads its lines.
//
//     qlora_gpu_bench BACKEND step SHAPE [key=value...]
//     qlora_gpu_bench BACKEND packed SHAPE [key=value...]    1 to 8 runs of one example, one run of eight
//
// Keys: batch=4 tokens=512 seconds=10 memory=24G, decode=1 (token steps of 1 and 16 sequences too), and
// options of a run (optim=paged_adamw_32bit). Shapes: tiny 135m 1.1b 7b 13b 33b.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/half.h"
#include "core/base/philox.h"
#include "core/models/generate.h"
#include "core/models/weights.h"
#include "core/train/pack.h"
#include "experiments/bench/step_lab.h"
#include "experiments/model_plan.h"
#include "experiments/place.h"
#include "kernels/devices.h"

namespace qlora::bench {
namespace {

constexpr double kMiB = 1 << 20;

struct ModelShape {
  const char* name;
  int64_t hidden, intermediate, layers, heads, kv_heads, vocab;
  bool tied;
};
// Of SmolLM2, TinyLlama, and LLaMA's papers.
constexpr ModelShape kShapes[] = {
    {"tiny", 128, 160, 2, 2, 1, 320, false},        {"135m", 576, 1536, 30, 9, 3, 49152, true},
    {"1.1b", 2048, 5632, 22, 32, 4, 32000, false},  {"7b", 4096, 11008, 32, 32, 32, 32000, false},
    {"13b", 5120, 13824, 40, 40, 40, 32000, false}, {"33b", 6656, 17920, 60, 52, 52, 32000, false},
};

const ModelShape& shape_named(const std::string& name) {
  for (const ModelShape& shape : kShapes)
    if (name == shape.name) return shape;
  fail(ErrorKind::usage, "no shape `{}`", name);
}

std::string config_json(const ModelShape& s) {
  return fmt::format(
      R"({{"model_type": "llama", "vocab_size": {}, "hidden_size": {}, "intermediate_size": {},
 "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {}, "max_position_embeddings": 4096,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": {},
 "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}})",
      s.vocab, s.hidden, s.intermediate, s.layers, s.heads, s.kv_heads, s.tied);
}

// A folder that goes when its owner goes.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "qlora-gpu-bench-XXXXXX").string();
    QLORA_CHECK(::mkdtemp(name.data()) != nullptr, failure, "cannot create the folder {}", name);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const Path& path() const { return path_; }

 private:
  Path path_;
};

// A model whose tensors all begin with the same random values: as large, as slow and as hot as a real one.
class SyntheticModel {
 public:
  explicit SyntheticModel(const ModelShape& shape) { write_file(config(), config_json(shape)); }
  Path config() const { return folder_.path() / "config.json"; }

  std::shared_ptr<const Model> load(Memory& memory, const LoadOptions& options) {
    const ModelFolder announced = announced_weights(config());
    std::vector<TensorInfo> tensors;
    int64_t most = 0;
    for (const std::string& name : announced.names()) {
      const TensorView& view = *announced.find(name);
      tensors.push_back({name, view.type, view.shape});
      most = std::max(most, view.size());
    }
    write_values(most);
    const MappedFile values(folder_.path() / "values");
    return load_weights(ModelFolder(config(), tensors, values.bytes()), config(), memory, options);
  }

 private:
  void write_values(int64_t n) const {
    constexpr int64_t kPiece = int64_t{1} << 20;
    PhiloxStream random(1);
    std::vector<uint16_t> piece(static_cast<size_t>(std::min(n, kPiece)));
    for (uint16_t& v : piece) v = to_bf16(0.1f * random.uniform() - 0.05f).bits;
    std::string all;
    all.reserve(static_cast<size_t>(n) * 2);
    for (int64_t done = 0; done < n; done += kPiece)
      all.append(reinterpret_cast<const char*>(piece.data()),
                 static_cast<size_t>(std::min(kPiece, n - done)) * 2);
    write_file(folder_.path() / "values", all);
  }
  Folder folder_;
};

// What the command line asks for.
struct Request {
  std::string backend, shape;
  int64_t batch = 4, tokens = 512, decode = 0;
  double seconds = 10;  // about how long to measure
  std::string memory = {};
  std::vector<std::string> options = {"compute_dtype=bf16", "lora_r=64", "lora_dropout=0.05",
                                      "gradient_checkpointing=true", "gradient_accumulation_steps=1"};
};

int64_t number(const std::string& text) {
  return std::stoll(text);
}

Request read_request(int argc, char** argv) {
  Request request{.backend = argv[1], .shape = argv[3]};
  for (int i = 4; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    QLORA_CHECK(equals != std::string::npos, usage, "`{}` is not key=value", word);
    const std::string key = word.substr(0, equals), value = word.substr(equals + 1);
    if (key == "batch") {
      request.batch = number(value);
    } else if (key == "tokens") {
      request.tokens = number(value);
    } else if (key == "decode") {
      request.decode = number(value);
    } else if (key == "seconds") {
      request.seconds = std::stod(value);
    } else if (key == "memory") {
      request.memory = value;
    } else {
      request.options.push_back(word);
    }
  }
  return request;
}

// With QLORA_CUDA_GRAPHS set, rows have names of their own.
void row(std::string name, double value, const char* unit, const std::string& note = "") {
  const char* graphs = std::getenv("QLORA_CUDA_GRAPHS");
  if (graphs != nullptr && *graphs != '\0') name += fmt::format(", graphs {}", graphs);
  fmt::print("{:<52} {:>10.5g} {:<10} {}\n", name, value, unit, note);
  std::fflush(stdout);
}

// Runs of one shape, one planned like the other, each of `batch` examples.
std::vector<PlannedRun> planned_runs(const RunConfig& config, int64_t runs, int64_t batch, int64_t tokens) {
  PlannedRun run;
  run.name = "bench";
  run.config = config;
  run.longest.assign(static_cast<size_t>(batch), tokens);
  std::vector<PlannedRun> all(static_cast<size_t>(runs), run);
  for (size_t i = 0; i < all.size(); ++i) all[i].key[0] = static_cast<uint8_t>(i);  // packs tell runs by keys
  return all;
}

MemoryPlan plan_of(const Place& place, const std::vector<PlannedRun>& runs) {
  std::vector<const PlannedRun*> pointers;
  for (const PlannedRun& run : runs) pointers.push_back(&run);
  return Planner(place.device).choose(pointers, place.budget).memory;
}

class Silent : public Observer {
 public:
  void on_step(const std::string&, const StepRecord& record) override { tokens += record.tokens; }
  int64_t tokens = 0;
};

class Random : public ExampleSource {
 public:
  explicit Random(std::vector<TokenExample> examples) : examples_(std::move(examples)) {}
  std::optional<TokenExample> next() override { return examples_[at_++ % examples_.size()]; }
  Json save() const override { return {{"at", at_}}; }
  void restore(const Json& state) override { at_ = state.at("at"); }

 private:
  std::vector<TokenExample> examples_;
  size_t at_ = 0;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One model on the device, and training packs on it.
class Lab {
 public:
  Lab(const Request& request, const Place& place)
      : request_(request),
        place_(place),
        synthetic_(shape_named(request.shape)),
        config_(model_plan_config(synthetic_.config(), request.options)) {}

  const RunConfig& config() const { return config_; }

  // False where it does not fit, which a row says.
  bool fits(const std::string& name, const MemoryPlan& plan) const {
    if (plan.bytes() > place_.budget)
      row(name, static_cast<double>(plan.bytes()) / kMiB, "MiB", "planned: does not fit, not run");
    if (!plan.host_has_room())
      row(name, static_cast<double>(plan.pinned()) / kMiB, "MiB", "pinned: more than the host has, not run");
    return plan.bytes() <= place_.budget && plan.host_has_room();
  }

  void load(const MemoryPlan& plan) {
    backend_ = make_backend(place_.backend, plan.options);
    memory_ = std::make_unique<Memory>(*backend_);
    memory_->reserve(plan.passing);
    memory_->reserve_lasting(plan.lasting);
    memory_->reserve_host(plan.offloaded);
    const LoadOptions options = load_options(config_);
    type_ = options.type;
    model_ = synthetic_.load(*memory_, options);
  }

  // Tokens a second of steps of so many runs of so many examples each.
  double train(int64_t runs, int64_t batch) {
    TrainPack pack(model_, *memory_, pack_options(config_));
    for (int64_t i = 0; i < runs; ++i) {
      TrainConfig train = train_config(config_);
      train.micro_batch = batch;
      train.max_steps = int64_t{1} << 30;
      train.seed = static_cast<uint64_t>(i);
      const LoraConfig lora = lora_config(config_);
      auto examples = full_examples(batch, request_.tokens, model_->config().vocab_size);
      pack.add(std::make_unique<Run>(std::to_string(i), lora, train,
                                     make_adapter(*model_, lora, *memory_, type_, train.seed),
                                     std::make_unique<Random>(std::move(examples)), *memory_, type_));
    }
    Silent warm;
    pack.micro_step(warm);
    backend_->synchronize();
    std::vector<double> rates;
    for (const double begin = now();
         rates.empty() || (now() - begin < request_.seconds && rates.size() < 20);) {
      Silent seen;
      const double start = now();
      pack.micro_step(seen);
      backend_->synchronize();
      rates.push_back(static_cast<double>(seen.tokens) / (now() - start));
    }
    std::sort(rates.begin(), rates.end());
    return rates[rates.size() / 2];
  }

  void memory_row(const std::string& name, const MemoryPlan& plan) const {
    const double taken = static_cast<double>(most_gpu_bytes(*backend_) + plan.device.context);
    row(name + " memory", taken / kMiB, "MiB",
        fmt::format("of {:.0f} MiB planned ({:.3f}), its context {:.0f} MiB ({})",
                    static_cast<double>(plan.bytes()) / kMiB, taken / static_cast<double>(plan.bytes()),
                    static_cast<double>(plan.device.context) / kMiB, describe_context(plan.device)));
  }

  // Tokens a second of token steps of so many sequences.
  double decode(int64_t batch, int64_t new_tokens) {
    std::vector<Prompt> prompts;
    for (int64_t i = 0; i < batch; ++i) {
      Prompt& prompt = prompts.emplace_back();
      for (int64_t t = 0; t < 8; ++t)
        prompt.tokens.push_back(static_cast<int32_t>((37 * i + 11 * t + 5) % model_->config().vocab_size));
    }
    int64_t tokens = 0;
    double first = 0, last = 0;
    GenerateOptions options;
    options.max_new_tokens = new_tokens + 1;
    options.numerics = Numerics::decode;
    options.on_token = [&](size_t, int32_t) {
      if (++tokens == batch) first = now();
      last = now();
      return true;
    };
    generate(*model_, *memory_, type_, prompts, options);
    return static_cast<double>(batch * new_tokens) / (last - first);
  }

 private:
  const Request& request_;
  const Place& place_;
  SyntheticModel synthetic_;
  RunConfig config_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Memory> memory_;
  DType type_ = DType::f32;
  std::shared_ptr<const Model> model_;
};

// What of a step is not as usual: its optimizer, and where inputs of blocks wait.
std::string settings_of(const Lab& lab) {
  const std::string mode = lab.config().text("gradient_checkpointing");
  return lab.config().text("optim") + (mode == "block" ? "" : " " + mode);
}

void measure_step(const Request& request, const Place& place) {
  Lab lab(request, place);
  const MemoryPlan plan = plan_of(place, planned_runs(lab.config(), 1, request.batch, request.tokens));
  const std::string name =
      fmt::format("step {} {}x{} {}", request.shape, request.batch, request.tokens, settings_of(lab));
  if (!lab.fits(name, plan)) return;
  lab.load(plan);
  row(name, lab.train(1, request.batch), "tokens/s", describe_products(plan));
  lab.memory_row(name, plan);
  if (request.decode == 0) return;
  for (int64_t batch : {1, 16}) {
    lab.decode(batch, 1);  // memory and kernels are there
    row(fmt::format("decode {} {} sequences", request.shape, batch),
        lab.decode(batch, place.backend == "cuda" ? 128 : 2), "tokens/s");
  }
}

void measure_packed(const Request& request, const Place& place) {
  Lab lab(request, place);
  const MemoryPlan eight = plan_of(place, planned_runs(lab.config(), 8, 1, request.tokens)),
                   whole = plan_of(place, planned_runs(lab.config(), 1, 8, request.tokens));
  const std::string name = fmt::format("packed {}", request.shape);
  if (!lab.fits(name, eight) || !lab.fits(name, whole)) return;
  MemoryPlan room = eight;
  room.passing = std::max(eight.passing, whole.passing);
  lab.load(room);
  const double one = lab.train(1, 8);
  row(fmt::format("{} one run of 8x{}", name, request.tokens), one, "tokens/s");
  for (int64_t runs : {1, 2, 4, 8}) {
    const double rate = lab.train(runs, 1);
    row(fmt::format("{} {} runs of 1x{}", name, runs, request.tokens), rate, "tokens/s",
        runs == 8 ? fmt::format("{:.2f} of one run of 8x{}", rate / one, request.tokens) : "");
  }
}

void run(int argc, char** argv) {
  QLORA_CHECK(argc >= 4, usage, "usage: qlora_gpu_bench BACKEND step|packed SHAPE [key=value...]");
  const std::map<std::string, void (*)(const Request&, const Place&)> kinds = {{"step", measure_step},
                                                                               {"packed", measure_packed}};
  const auto kind = kinds.find(argv[2]);
  QLORA_CHECK(kind != kinds.end(), usage, "`{}` is neither step nor packed", argv[2]);
  const Request request = read_request(argc, argv);
  kind->second(request, place_of(request.backend, request.memory));
}

}  // namespace
}  // namespace qlora::bench

int main(int argc, char** argv) {
  try {
    qlora::bench::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "qlora_gpu_bench: {}\n", e.what());
    return 1;
  }
}
