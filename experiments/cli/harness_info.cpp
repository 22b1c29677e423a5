#include "experiments/cli/harness_info.h"

#include "core/io/safetensors.h"
#include "core/models/model.h"
#include "experiments/build_info.h"
#include "experiments/eval_rows.h"
#include "experiments/spec.h"

namespace qlora {
namespace {

// Of the architecture, whatever the weights are stored as; a tied head counts once.
int64_t parameters_of(const Path& model) {
  const auto backend = make_counting_backend();
  Memory memory(*backend);
  const auto shapes =
      shapes_of_model(model / "config.json", memory, {.type = DType::f32, .shapes_only = true});
  return static_cast<int64_t>(shapes->bytes() / sizeof(float));
}

int64_t parameters_of_adapter(const Path& weights) {
  const SafetensorsFile file(weights);
  int64_t sum = 0;
  for (const auto& [name, tensor] : file.tensors()) sum += tensor.size();
  return sum;
}

}  // namespace

HarnessInfo harness_info(const HarnessSubject& subject, const std::string& started, double seconds) {
  HarnessInfo info;
  info.model = subject.model;
  info.adapter = subject.adapter;
  if (const std::string quant = quant_label(*subject.config); quant != "none")
    info.model_args.emplace_back("quant", quant);
  info.model_sha = model_content_hash(subject.model);
  info.parameters = parameters_of(subject.model);
  if (!subject.adapter.empty()) {
    const Path weights = Path(subject.adapter) / "adapter_model.safetensors";
    info.peft_sha = hex(sha256_file(weights));
    info.parameters += parameters_of_adapter(weights);
  }
  info.dtype = subject.config->text("compute_dtype");
  info.device = subject.device;
  info.program = program_line();
  if (const std::string commit = build_info().commit; commit != "unknown") info.commit = commit;
  info.started = started;
  info.date = now_utc();
  info.seconds = seconds;
  info.max_length = subject.max_length;
  return info;
}

}  // namespace qlora
