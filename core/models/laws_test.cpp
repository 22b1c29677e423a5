// Laws that every family keeps, shown on small random models: bit for bit, on every backend that this machine
// has.

#include <catch2/catch.hpp>

#include "core/base/parallel.h"
#include "core/base/test_data.h"
#include "core/models/batch_loss.h"
#include "core/models/tiny_model.h"
#include "core/ops/ops.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

const std::vector<TinyConfig> kModels = [] {
  std::vector<TinyConfig> all = {
      {.model_type = "llama", .biases = true},
      {.model_type = "mistral", .head_dim = 6, .window = 5},
      {.model_type = "qwen2", .tied = true},
      {.model_type = "qwen3", .head_dim = 10},
      kTinyGemma2,
  };
  for (const TinyConfig& c : tiny_layer_norm_models()) all.push_back(c);
  all.push_back(kTinyPhi3);
  return all;
}();

// The emulated GPU takes seconds a model.
std::vector<TinyConfig> models_on(const Variant& variant) {
  std::vector<TinyConfig> some = kModels;
  if (variant.backend == "cuda-emulated")
    std::erase_if(some, [&](const TinyConfig& c) { return !asks_anew(c, variant.operands); });
  return some;
}

// A backend, a model on it, and three adapters of different rank, with dropout.
struct Lab {
  std::unique_ptr<Backend> backend;
  Memory memory;
  LoadOptions options;
  std::shared_ptr<const Model> model;
  std::vector<Adapter> adapters;
  std::vector<TinyRun> runs;

  Lab(std::unique_ptr<Backend> b, const TinyConfig& config, LoadOptions o, float dropout = 0.1f)
      : backend(std::move(b)), memory(*backend), options(o), model(load_tiny_model(memory, config, o)) {
    const std::vector<int64_t> ranks = {2, 8, 3};
    const std::vector<std::vector<int64_t>> lengths = {{7, 19}, {1, 33, 12, 2}, {24, 5, 5}};
    for (size_t i = 0; i < ranks.size(); ++i) {
      adapters.push_back(make_tiny_adapter(*model, memory, options.type,
                                           {.rank = ranks[i], .dropout = dropout, .seed = 10 + i}));
    }
    for (size_t i = 0; i < ranks.size(); ++i) {
      runs.push_back({&adapters[i], 100 + i, static_cast<uint32_t>(3 * i), 0,
                      random_examples(i, lengths[i], model->config().vocab_size)});
    }
  }

  // One forward and backward; adds to the gradients. Returns the losses of all rows.
  std::vector<double> step(const std::vector<TinyRun>& these,
                           Checkpointing checkpointing = Checkpointing::none) {
    Batch batch = make_tiny_batch(these);
    Tape tape;
    Context c{.backend = *backend,
              .memory = memory,
              .axis = &batch.axis,
              .type = options.type,
              .tape = &tape,
              .training = true,
              .checkpointing = checkpointing};
    return batch_losses(c, *model, batch);
  }

  std::vector<std::vector<double>> gradients(size_t run) {
    std::vector<std::vector<double>> all;
    for (Param* p : adapters[run].params()) all.push_back(p->grad.to_doubles());
    return all;
  }

  void clear() {
    for (Adapter& a : adapters) {
      for (Param* p : a.params()) p->grad.fill_zero();
    }
  }
};

Lab lab_on(const Variant& v, const TinyConfig& config) {
  return Lab(make_backend(v.backend), config,
             {.quant = {.format = Format::nf4, .double_quant = true}, .operands = v.operands});
}

bool nonzero(const std::vector<std::vector<double>>& tensors) {
  for (const auto& t : tensors) {
    if (std::all_of(t.begin(), t.end(), [](double v) { return v == 0; })) return false;
  }
  return true;
}

double total(const std::vector<double>& losses) {
  double sum = 0;
  for (double l : losses) sum += l;
  return sum;
}

}  // namespace

TEST_CASE("gradients through a whole model equal central differences") {
  for (const TinyConfig& config : kModels) {
    Lab lab(make_backend("reference"), config, {.type = DType::f64});
    for (Checkpointing checkpointing : kHostCheckpointings) {
      lab.clear();
      lab.step(lab.runs, checkpointing);
      double worst = 0;
      int checked = 0;
      for (size_t run = 0; run < lab.runs.size(); ++run) {
        std::vector<Param*> params = lab.adapters[run].params();
        std::vector<std::vector<double>> gradients = lab.gradients(run);
        // A sample of all kinds of linears.
        for (size_t i = run; i < params.size(); i += params.size() < 28 ? 3 : 5) {
          size_t at = (7 * i + run) % gradients[i].size();
          double* value = params[i]->value.as<double>() + at;
          const double h = 1e-5, kept = *value;
          // lm_loss with a tape would add to the gradients: evaluate without one, with the same dropout.
          auto loss = [&](double v) {
            *value = v;
            Batch batch = make_tiny_batch(lab.runs);
            Context c{.backend = *lab.backend,
                      .memory = lab.memory,
                      .axis = &batch.axis,
                      .type = DType::f64,
                      .training = true};
            return total(batch_losses(c, *lab.model, batch));
          };
          double difference = (loss(kept + h) - loss(kept - h)) / (2 * h);
          *value = kept;
          worst = worse(worst, std::abs(difference - gradients[i][at]) / std::max(1.0, std::abs(difference)));
          ++checked;
        }
      }
      INFO(config.model_type << " checkpointing " << name_of(checkpointing) << ", " << checked << " entries");
      CHECK(checked >= 16);
      CHECK(worst < 1e-7);
    }
  }
}

TEST_CASE("a run packed with others has the bits it has alone") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    for (const TinyConfig& config : models_on(variant)) {
      Lab lab = lab_on(variant, config);
      std::vector<double> packed = lab.step(lab.runs);
      size_t row = 0;
      for (size_t run = 0; run < lab.runs.size(); ++run) {
        INFO(variant << " " << config.model_type << " run " << run);
        std::vector<std::vector<double>> together = lab.gradients(run);
        CHECK(nonzero(together));
        for (Param* p : lab.adapters[run].params()) p->grad.fill_zero();
        std::vector<double> alone = lab.step({lab.runs[run]}, kCheckpointings[run + 1]);
        std::vector<double> part(packed.begin() + static_cast<int64_t>(row),
                                 packed.begin() + static_cast<int64_t>(row + alone.size()));
        CHECK(alone == part);
        CHECK(lab.gradients(run) == together);
        row += alone.size();
      }
    }
  }
}

TEST_CASE("wanted rows have the bits that they have among all") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    for (const TinyConfig& config : models_on(variant)) {
      INFO(variant << " " << config.model_type);
      Lab lab = lab_on(variant, config);
      const Batch batch = make_tiny_batch(lab.runs);
      std::vector<int32_t> ids;  // of every third sequence none
      for (size_t s = 0; s < static_cast<size_t>(batch.axis.sequences()); ++s)
        for (int32_t row = batch.axis.cu[s]; row < batch.axis.cu[s + 1]; ++row)
          if (s % 3 != 1 && row % 5 > 1) ids.push_back(row);
      const WantedRows wanted = wanted_rows(batch.axis, ids);
      Context c{.backend = *lab.backend,
                .memory = lab.memory,
                .axis = &batch.axis,
                .type = lab.options.type,
                .training = true};
      const std::vector<double> all = lab.model->hidden(c).value.to_doubles();
      const int64_t hidden = lab.model->head().in();
      std::vector<double> expected;
      for (int32_t row : ids)
        expected.insert(expected.end(), all.begin() + row * hidden, all.begin() + (row + 1) * hidden);
      c.wanted = &wanted;
      CHECK(lab.model->hidden(c).value.to_doubles() == expected);
      Tape tape;
      c.tape = &tape;
      CHECK(lab.model->hidden(c).value.to_doubles() == expected);
    }
  }
}

// Adapters of every linear; of some linears here and others there; of none of the blocks' last ones.
void leave_out(Lab& lab, int which) {
  const auto end_of = [](const LinearInfo& info) { return info.name.substr(info.name.rfind('.')); };
  const std::string first = end_of(lab.model->linears().front()), final = end_of(lab.model->linears().back());
  for (size_t run = 0; run < lab.adapters.size(); ++run)
    std::erase_if(lab.adapters[run].lora, [&](const auto& entry) {
      const bool last = entry.first.ends_with(final);
      return which == 1 ? (run == 1 && last) || (run == 2 && entry.first.ends_with(first))
                        : which == 2 && last;
    });
}

TEST_CASE("checkpointing changes no bit") {
  for (const Variant& variant : runnable_variants()) {
    for (const TinyConfig& config : kModels) {
      for (int which : {0, 1, 2}) {
        Lab lab = lab_on(variant, config);
        leave_out(lab, which);
        std::vector<double> kept = lab.step(lab.runs);
        std::vector<std::vector<std::vector<double>>> gradients;
        for (size_t run = 0; run < 3; ++run) gradients.push_back(lab.gradients(run));
        for (Checkpointing mode : {Checkpointing::selective, Checkpointing::block}) {
          INFO(variant << " " << config.model_type << " " << name_of(mode) << " " << which);
          lab.clear();
          CHECK(lab.step(lab.runs, mode) == kept);
          for (size_t run = 0; run < 3; ++run) CHECK(lab.gradients(run) == gradients[run]);
          CHECK(lab.memory.used(Tag::activations) == 0);
        }
      }
    }
  }
}

TEST_CASE("the more is computed again the less memory a step needs") {
  Lab lab(make_counting_backend(), {.layers = 4}, {.shapes_only = true});
  std::vector<size_t> peaks;
  for (Checkpointing mode : kCheckpointings) {
    lab.memory.reset_peak();
    lab.step(lab.runs, mode);
    peaks.push_back(lab.memory.peak(Tag::activations));
  }
  CHECK(static_cast<double>(peaks[1]) < 0.85 * static_cast<double>(peaks[0]));
  CHECK(peaks[2] < peaks[0] / 2);
  // At the peak the last block, of few rows, is done: all other inputs of blocks are there, or two.
  const size_t input =
      lab.model->config().hidden_size * make_tiny_batch(lab.runs).axis.rows() * sizeof(float);
  CHECK(peaks[2] - peaks[3] == (lab.model->config().layers - 3) * input);
}

TEST_CASE("what products alone read is kept as they read it") {
  const auto peak_of = [](CountedKernels kernels, Operands operands) {
    Lab lab(make_counting_backend(kernels), {.layers = 4}, {.operands = operands, .shapes_only = true});
    lab.memory.reset_peak();
    lab.step(lab.runs);
    return static_cast<double>(lab.memory.peak(Tag::activations));
  };
  const double all = peak_of(CountedKernels::cpu, Operands::as_stored);
  CHECK(peak_of(CountedKernels::cpu, Operands::bf16) < 0.85 * all);
  CHECK(peak_of(CountedKernels::cuda, Operands::bf16) == peak_of(CountedKernels::cuda, Operands::as_stored));
}

TEST_CASE("a block that runs again leaves out its last linear") {
  auto counting = make_counting_backend();
  CountingBackend& counter = *counting;
  Lab lab(std::move(counting), {.layers = 4}, {.shapes_only = true});
  double products[4];
  for (Checkpointing mode : kCheckpointings) {
    counter.reset();
    lab.step(lab.runs, mode);
    products[static_cast<int>(mode)] = counter.work().flops;
  }
  // A forward pass, and the part of it that backward never reads.
  Batch batch = make_tiny_batch(lab.runs);
  Context c{.backend = counter, .memory = lab.memory, .axis = &batch.axis, .training = true};
  counter.reset();
  lab.model->hidden(c);
  const double forward = counter.work().flops, again = products[2] - products[0];
  double last = 0;
  for (const LinearInfo& info : lab.model->linears())
    if (info.name.ends_with("down_proj"))
      last += 2 * static_cast<double>(batch.axis.rows() * info.out * info.in);
  CHECK(again < forward - last);
  CHECK(again > forward - 2 * last);
  CHECK(products[3] == products[2]);
}

TEST_CASE("micro-batches of one example add up to the whole batch bit for bit") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    Lab lab = lab_on(variant, {});
    std::vector<double> whole = lab.step({lab.runs[1]});
    std::vector<std::vector<double>> gradients = lab.gradients(1);
    lab.clear();
    std::vector<double> losses;
    for (size_t e = 0; e < lab.runs[1].examples.size(); ++e) {
      TinyRun part = lab.runs[1];
      part.examples = {lab.runs[1].examples[e]};
      part.first = static_cast<uint32_t>(e);
      std::vector<double> some = lab.step({part}, kCheckpointings[e % 4]);
      losses.insert(losses.end(), some.begin(), some.end());
    }
    INFO(variant);
    CHECK(losses == whole);
    CHECK(lab.gradients(1) == gradients);
  }
}

TEST_CASE("one thread and two give the same bits") {
  int before = thread_count();
  for (const Variant& variant : runnable_variants()) {
    Lab lab = lab_on(variant, {});
    set_thread_count(1);
    std::vector<double> one = lab.step(lab.runs);
    std::vector<std::vector<double>> gradients = lab.gradients(2);
    lab.clear();
    set_thread_count(2);
    INFO(variant);
    CHECK(lab.step(lab.runs) == one);
    CHECK(lab.gradients(2) == gradients);
  }
  set_thread_count(before);
}

TEST_CASE("the counting backend predicts the peak of a step to the byte") {
  std::vector<TinyConfig> configs = tiny_layer_norm_models();
  configs.insert(configs.end(), {{.layers = 3}, kTinyGemma2, kTinyPhi3});
  for (const TinyConfig& config : configs) {
    for (Checkpointing checkpointing : kHostCheckpointings) {
      for (Operands operands : {Operands::as_stored, Operands::bf16}) {
        INFO(config.model_type << " " << name_of(checkpointing));
        LoadOptions options{.quant = {.format = Format::nf4}, .operands = operands};
        Lab real(make_backend("reference"), config, options);
        options.shapes_only = true;
        Lab planned(make_counting_backend(), config, options);
        for (Lab* lab : {&real, &planned}) {
          lab->memory.reset_peak();
          lab->step(lab->runs, checkpointing);
        }
        CHECK(planned.model->bytes() == real.model->bytes());
        CHECK(planned.memory.used() == real.memory.used());
        CHECK(planned.memory.peak() == real.memory.peak());
        for (Tag t : {Tag::weights, Tag::adapters, Tag::gradients, Tag::activations, Tag::scratch}) {
          INFO(name_of(t));
          CHECK(planned.memory.peak(t) == real.memory.peak(t));
          CHECK(planned.memory.at_peak(t) == real.memory.at_peak(t));
        }
      }
    }
  }
}

TEST_CASE("offload changes no bit on a GPU and takes of it what the counting backend says") {
  const TinyConfig config{.layers = 3};
  LoadOptions options{.quant = {.format = Format::nf4}};
  Lab lab(make_backend("cuda-emulated"), config, options);
  const std::vector<double> kept = lab.step(lab.runs);
  std::vector<std::vector<std::vector<double>>> gradients;
  for (size_t run = 0; run < 3; ++run) gradients.push_back(lab.gradients(run));
  lab.clear();
  options.shapes_only = true;
  Lab planned(make_counting_backend(CountedKernels::cuda), config, options);
  for (Lab* l : {&lab, &planned}) l->memory.reset_peak();
  planned.step(planned.runs, Checkpointing::offload);
  CHECK(lab.step(lab.runs, Checkpointing::offload) == kept);
  for (size_t run = 0; run < 3; ++run) CHECK(lab.gradients(run) == gradients[run]);
  CHECK(planned.memory.peak() == lab.memory.peak());
  CHECK(planned.memory.held_peak() == lab.memory.held_peak());
  CHECK(planned.memory.host_held_passing() == lab.memory.host_held_passing());
  CHECK(lab.memory.host_used() == 0);
  CHECK(lab.memory.used(Tag::activations) == 0);
}

// Elements of embeddings, heads and what else stays dense.
int64_t matrices_beside_linears(const TinyConfig& config, const Model& model) {
  TemporaryFolder folder;
  write_file(folder.path() / "config.json", tiny_config_json(config));
  const ModelFolder weights = announced_weights(folder.path() / "config.json");
  int64_t elements = 0;
  for (const std::string& name : weights.names())
    if (const TensorView& w = *weights.find(name); w.shape.size() == 2) elements += w.size();
  for (const LinearInfo& linear : model.linears()) elements -= linear.out * linear.in;
  return elements;
}

TEST_CASE("bf16 operands halve the dense weights and move losses by little") {
  for (const std::string& backend : runnable_backends()) {
    for (const TinyConfig& config : kModels) {
      INFO(backend << " " << config.model_type);
      Lab exact = lab_on({backend}, config), rounded = lab_on({backend, Operands::bf16}, config);
      const int64_t tables = matrices_beside_linears(config, *exact.model);
      CHECK(exact.model->bytes() - rounded.model->bytes() == static_cast<size_t>(2 * tables));
      std::vector<double> a = exact.step(exact.runs), b = rounded.step(rounded.runs);
      CHECK(a != b);
      CHECK(std::abs(total(a) - total(b)) < 0.01 * total(a));
    }
  }
}

TEST_CASE("an adapter on the last linear of a model costs no gradients below it") {
  auto counting = make_counting_backend();
  CountingBackend& counter = *counting;
  Lab lab(std::move(counting), {.layers = 4}, {.shapes_only = true}, 0);
  auto flops = [&](const std::string& only) {
    Adapter adapter = make_tiny_adapter(*lab.model, lab.memory, DType::f32, {.rank = 2, .only = only});
    counter.reset();
    lab.step({{&adapter, 1, 0, 0, lab.runs[1].examples}});
    return counter.work().flops;
  };
  double first = flops("layers.0.mlp.down_proj"), last = flops("layers.3.mlp.down_proj");
  CHECK(last < 0.8 * first);
}
