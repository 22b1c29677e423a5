#include "experiments/cli/harness_info.h"

#include "experiments/build_info.h"
#include "experiments/eval_rows.h"

namespace qlora {

HarnessInfo harness_info(const ModelArguments& arguments, LoadedModel& loaded, const std::string& started,
                         double seconds) {
  HarnessInfo info;
  info.model = arguments.model;
  info.model_args = "pretrained=" + arguments.model;
  if (!arguments.adapter.empty()) info.model_args += ",peft=" + arguments.adapter;
  if (const std::string quant = quant_label(loaded.config()); quant != "none")
    info.model_args += ",quant=" + quant;
  info.dtype = loaded.config().text("compute_dtype");
  info.device = std::string(loaded.memory().backend().name());
  info.program = program_line();
  info.date = started;
  info.seconds = seconds;
  info.max_length = loaded.model()->config().max_positions;
  return info;
}

}  // namespace qlora
