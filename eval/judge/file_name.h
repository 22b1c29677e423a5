#pragma once
// Names of judgment files of the QLoRA release (Dettmers et al. 2023, eval/ratings-gpt4) and of PRD's human
// votes (Li et al. 2023): who was judged stands in the name alone,
//   FIRST-vs-SECOND-JUDGE-reviewer-threeclass.jsonl   verdicts
//   FIRST-vs-SECOND-JUDGE-reviewer.jsonl              10-point scores
// or with underscores, as the release's program writes them. In the release's files of scores the name's
// order is wrong in 66 of 72 cases (answer_ids.h puts it right).

#include <string>
#include <string_view>

namespace qlora {

struct JudgmentName {
  std::string first, second;  // systems, after system_alias(); `first` is said to have been shown first
  std::string judge;          // gpt-4, human, ...
};

inline constexpr std::string_view kExpectedJudgmentName =
    "FIRST-vs-SECOND-JUDGE-reviewer-threeclass.jsonl (or .jsonl.gz, or with underscores)";

// The name under which a system competes: the aliases of the release are folded
// ("30b-guanaco-vicuna-generations-topp0.9-temp0.7" = guanaco-33b, "answer_gpt35" = gpt-3.5, ...), and
// of the names of `qlora generate` ("lora_r8-q-generations-greedy") the system is left; other names stay as
// they are.
std::string system_alias(std::string_view name_in_file);

// Takes a file's name (without its folder) apart. Throws Error(data) with the expected form.
JudgmentName parse_judgment_name(std::string_view file_name);

// The name of a file to write. A judge whose name would not be read back stands in it as judge_label() (the
// rows then say who it was). Throws Error(usage) when the systems would not be read back.
std::string judgment_file_name(const JudgmentName&, bool verdicts);

// A judge's name without separators: "gpt.4o.mini".
std::string judge_label(std::string_view judge);

}  // namespace qlora
