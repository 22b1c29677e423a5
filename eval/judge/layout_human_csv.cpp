// The QLoRA release's human votes, vicuna_benchmark_human_annotations.csv, one record a rater:
//   hit_id_hash, worker_id_hash, system_a, system_b, prompt, generation_system_a, generation_system_b,
//   answer: system_a | system_b | tie
// system_a counts as shown first. An item has no id and is known by its prompt; the judge is `human`, the
// worker is the rater. The two columns of answers may be missing: they only tell lengths.
#include <fstream>

#include "core/base/check.h"
#include "core/base/names.h"
#include "eval/judge/layouts.h"

namespace qlora {

namespace {

constexpr std::string_view kHuman = "human";
constexpr const char* kAnswers[] = {"system_a", "system_b", "tie"};  // in the order of Verdict

bool fits(const Row& row) {
  return row.has("system_a") && row.has("system_b") && (row.has("prompt") || row.has("answer"));
}

std::string filled(const Row& row, const char* column) {
  std::string text = row.text(column);
  QLORA_CHECK(!text.empty(), data, "{}: `{}` is empty", row.where(), column);
  return text;
}

Verdict verdict_in(const Row& row) {
  const std::string answer = row.text("answer");
  for (int i = 0; i < 3; ++i)
    if (answer == kAnswers[i]) return static_cast<Verdict>(i);
  fail(ErrorKind::data, "{}: {}", row.where(),
       unknown_name("answer", answer, std::vector<std::string>(std::begin(kAnswers), std::end(kAnswers))));
}

void read(const Row& row, const JudgmentSource&, std::vector<Vote>& votes) {
  Vote vote;
  vote.item = item_of_words(filled(row, "prompt"));
  vote.first = system_alias(filled(row, "system_a"));
  vote.second = system_alias(filled(row, "system_b"));
  QLORA_CHECK(vote.first != vote.second, data, "{}: compares {} with itself", row.where(), vote.first);
  vote.verdict = verdict_in(row);
  vote.judge = kHuman;
  vote.rater = row.text("worker_id_hash");
  vote.first_length = static_cast<int64_t>(row.text_or_empty("generation_system_a").size());
  vote.second_length = static_cast<int64_t>(row.text_or_empty("generation_system_b").size());
  vote.line = row.line();
  votes.push_back(std::move(vote));
}

std::string quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string text = "\"";
  for (char c : field) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + "\"";
}

std::map<std::string, std::string> write(std::span<const Vote> votes) {
  std::string text =
      "hit_id_hash,worker_id_hash,system_a,system_b,prompt,generation_system_a,generation_system_b,answer\n";
  for (const Vote& vote : votes) {
    QLORA_CHECK(
        vote.pairwise() && vote.order_known && !vote.points && vote.turn == 1 && vote.judge == kHuman &&
            static_cast<size_t>(vote.verdict) < std::size(kAnswers),
        usage,
        "item {} of {}: the release's CSV holds people's verdicts between two answers of one turn in a "
        "known order, nothing else",
        vote.item, vote.first);
    text += fmt::format(",{},{},{},{},{},{},{}\n", quoted(vote.rater), quoted(vote.first),
                        quoted(vote.second), quoted(vote.item), quoted(vote.first_answer),
                        quoted(vote.second_answer), kAnswers[static_cast<int>(vote.verdict)]);
  }
  return {{"human_annotations.csv", text}};
}

}  // namespace

bool is_human_csv(const Path& path) {
  const std::string name = path.filename().string();
  std::string header;
  if (name.ends_with(".csv"))
    std::getline(std::ifstream(path), header);
  else if (name.ends_with(".csv.gz"))
    header = read_file(path);
  header.resize(std::min(header.find('\n'), header.size()));
  auto holds = [&](std::string_view column) { return header.find(column) != std::string::npos; };
  return holds("worker_id_hash") && holds("system_a") && holds("system_b") && holds("answer");
}

const JudgmentLayout kHumanCsvLayout = {
    "human-csv",
    "the QLoRA release's table of human votes; what is written names items and answers by their ids",
    false,
    fits,
    read,
    write};

}  // namespace qlora
