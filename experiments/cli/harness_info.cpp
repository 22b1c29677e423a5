#include "experiments/cli/harness_info.h"

#include "experiments/build_info.h"
#include "experiments/eval_rows.h"
#include "experiments/spec.h"

namespace qlora {

HarnessInfo harness_info(const HarnessSubject& subject, const std::string& started, double seconds) {
  HarnessInfo info;
  info.model = subject.model;
  info.adapter = subject.adapter;
  if (const std::string quant = quant_label(*subject.config); quant != "none")
    info.model_args.emplace_back("quant", quant);
  info.model_sha = model_content_hash(subject.model);
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
