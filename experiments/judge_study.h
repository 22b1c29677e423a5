#pragma once
// Asking one judge, as `qlora judge run` and a sweep do it: an endpoint, or a local model.

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "eval/judge/judge_run.h"
#include "experiments/config.h"

namespace qlora {

inline constexpr std::string_view kBaseJudge = "base";  // of a sweep: the model that its runs stand on

struct JudgeSetup {
  std::string judge;                       // a model of an OpenAI-compatible endpoint, or model:FOLDER
  std::string name = {};                   // in the votes; empty: the model's
  std::string prompts = {};                // a file in the release's layout; empty: ours
  bool points = false;                     // ask for points from 0 to 10, not for a verdict
  std::optional<double> temperature = {};  // default: 0.2, of a local model 0
  int max_tokens = 1024;                   // of an answer
  std::string chat_template = "auto";      // of a local model
  HttpChatOptions http = {};               // of an endpoint; key and address come from the environment
  JudgeRunOptions run = {};
};
std::string folder_of(const JudgeSetup&);  // of a local model; empty: an endpoint
bool is_local(const JudgeSetup&);
std::string name_of(const JudgeSetup&);
// The study without its questions and systems. Throws what reading the prompts throws.
JudgeStudy study_of(const JudgeSetup&);
// Throws Error(usage) where asking can only end badly: a budget in money without prices, an endpoint of which
// neither a key nor an address is in the environment.
void check_can_ask(const JudgeSetup&);
// The configuration of a local judge: the model as its folder has it, not quantized, in the type that is
// fastest where it computes.
RunConfig judge_config(const std::string& folder, bool on_gpu);

// Where a judge that is a local model computes.
struct LocalJudge {
  std::string backend = "auto";
  int threads = 0;               // 0: the default
  size_t room = 0, lasting = 0;  // bytes planned for what passes and what lasts; 0: not planned
};

// Asks, and hands every answer to the journal when it arrives. `told` hears how many have come so far, and
// may throw to end it; it may be empty.
JudgeRunReport ask_judge(const JudgeSetup&, std::span<const JudgeAsk>, JudgeJournal&, const LocalJudge&,
                         const std::function<void(int64_t done)>& told = {});

// "80 answered (3 without a verdict), ...".
std::string describe(const JudgeRunReport&);
// One line about votes that are there and answer other requests; "" for none.
std::string about_other_votes(int64_t votes, const std::string& folder);
// What a reader of votes by a local model must know.
inline constexpr const char* kLocalJudgeCaution =
    "A local model was the judge. Small models judge badly: `qlora elo bias` shows how far it follows the "
    "place of an answer rather than the answer.";

}  // namespace qlora
