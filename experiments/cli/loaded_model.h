#pragma once
// A model with its tokenizer and, where one is given, an adapter: what generating and evaluating start from.

#include <memory>
#include <string>

#include "core/lora/lora.h"
#include "core/text/tokenizer.h"
#include "experiments/config.h"

namespace CLI {
class App;
}

namespace qlora {

struct ModelArguments {
  std::string model, adapter;
  // none, or the name of a format (nf4, fp4, fp4-e3m0, int4, int8), also with +dq; empty: as the adapter was
  // trained, where its run's qlora_run.json tells, else none.
  std::string quant;
  // auto, f32, bf16 or bf16_amx; empty: likewise, else auto.
  std::string compute_dtype;
  bool no_cache = false;  // base_cache: false
  // Of verbs that generate. fast | exact; empty: as the adapter's run says, else fast.
  std::string decode_numerics;
  std::string prompt_lookup_num_tokens;  // auto, or a number; empty: likewise, else auto
};
void add_model_options(CLI::App&, ModelArguments&);

// The configuration of a base under this quantization: what keys and labels are made of. `backend` (auto, or
// a name) says whether `auto` stands for the type of a GPU.
RunConfig base_config(const ModelArguments&, const std::string& backend);

class LoadedModel {
 public:
  // Throws Error(usage) or Error(data).
  LoadedModel(const ModelArguments&, const std::string& backend, int threads);
  // A base alone, as a run's configuration has it.
  LoadedModel(const RunConfig&, const std::string& backend, int threads);
  const RunConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  std::shared_ptr<const Tokenizer> shared_tokenizer() const { return tokenizer_; }
  std::shared_ptr<const Model> model() const { return model_; }
  Memory& memory() { return memory_; }
  DType type() const { return type_; }
  Adapter* adapter() { return adapter_.adapter.get(); }  // null: the base

 private:
  RunConfig config_;
  DType type_;
  std::unique_ptr<Backend> backend_;
  Memory memory_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const Model> model_;
  LoadedAdapter adapter_;
};

}  // namespace qlora
