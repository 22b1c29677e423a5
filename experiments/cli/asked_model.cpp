#include "experiments/cli/asked_model.h"

#include "core/base/check.h"
#include "experiments/answer_log.h"
#include "experiments/terminal.h"

namespace qlora {

void ask_model(LoadedModel& loaded, Store* store, const Digest& evaluation, const std::string& what,
               bool quiet, const std::function<void(Lm&, SubjectIndex)>& ask) {
  constexpr double kPlainLineSeconds = 10;
  Progress progress(stderr, quiet, kPlainLineSeconds);
  GatheredAnswers log([&](const Digest& of, std::span<const PartialAnswer> answers) {
    store->write_partial_answers(of, answers);
  });
  ModelLmOptions options;
  options.type = loaded.type();
  options.tokenizer = loaded.shared_tokenizer();
  options.progress = [&](int64_t done, int64_t all) {
    log.flush();
    progress.phase(what, done, all);
  };
  std::vector<Adapter*> adapters;
  if (loaded.adapter() != nullptr) adapters.push_back(loaded.adapter());
  const SubjectIndex who = adapters.empty() ? -1 : 0;
  auto lm = make_model_lm(loaded.model(), loaded.memory(), adapters, options);
  if (store == nullptr) return ask(*lm, who);
  const std::vector<PartialAnswer> known = store->partial_answers(evaluation);
  if (!known.empty())
    progress.note(fmt::format("{}: goes on after {} answers that are stored", what, known.size()));
  log.know(evaluation, known);
  const auto missing = make_remembering_lm(*lm, {evaluation, evaluation}, log);
  ask(*missing, who);
}

}  // namespace qlora
