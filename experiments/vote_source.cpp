#include "experiments/vote_source.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "core/base/check.h"
#include "eval/judge/answer_ids.h"
#include "eval/judge/known_systems.h"
#include "eval/ratings/answer_lengths.h"
#include "eval/ratings/presets.h"
#include "experiments/stored_votes.h"
#include "results/store.h"

namespace qlora {

namespace {

std::set<std::string> systems_of(std::span<const JudgmentFile> files) {
  std::set<std::string> names;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes)
      for (const std::string& name : {vote.first, vote.second})
        if (!name.empty()) names.insert(name);
  return names;
}

bool is_no_path(const std::string& text) {
  static constexpr std::array<std::string_view, 4> kEndings = {".json", ".jsonl", ".csv", ".gz"};
  const bool named_as_file = text.ends_with('/') || text.find_first_of("*?[") != std::string::npos ||
                             std::any_of(kEndings.begin(), kEndings.end(),
                                         [&](std::string_view ending) { return text.ends_with(ending); });
  return !named_as_file && !std::filesystem::exists(text);
}

std::vector<JudgmentFile> read(const VoteSource& source) {
  if (!source.files.empty()) {
    QLORA_CHECK(source.parser.empty(), usage,
                "--parser chooses among readings of stored votes; for files, see `qlora judge reparse`");
    AnswerBook book;
    for (const std::string& text : source.answers)
      for (const Path& path : find_answer_files(text)) book.add(path);
    return load_judgments(source.files, source.answers.empty() ? nullptr : &book);
  }
  QLORA_CHECK(
      source.answers.empty(), usage,
      "--answers puts files in order; stored votes have the order that `qlora judge import --answers` "
      "gave them");
  return stored_votes(source.db, source.parser);
}

}  // namespace

void settle_systems(std::vector<std::string>& files, std::vector<std::string>& systems) {
  const auto first = std::stable_partition(files.begin(), files.end(),
                                           [](const std::string& text) { return !is_no_path(text); });
  if (first == files.end()) return;
  const std::vector<std::string> names(first, files.end());
  if (!systems.empty()) {
    files.erase(first, files.end());
    systems.insert(systems.end(), names.begin(), names.end());
    return;
  }
  if (first == files.begin()) return;
  const KnownSystems known = known_systems(load_judgments(std::vector<std::string>(files.begin(), first)));
  for (const std::string& name : names)
    QLORA_CHECK(known.count(system_alias(name)) == 0, usage,
                "{}: there is no such file, but a system of that name; systems are written --systems {}",
                name, names.size() > 1 ? fmt::format("{}", fmt::join(names, ",")) : name + ",OTHER");
}

std::vector<JudgmentFile> stored_votes(const std::string& db, const std::string& parser) {
  QLORA_CHECK(std::filesystem::exists(db), data,
              "{}: there is no such results store; give judgment files, or store some (qlora judge import)",
              db);
  std::vector<JudgmentFile> files;
  for (const VoteFile& file : Store::open_read_only(db).votes(parser)) files.push_back(judgment_file(file));
  QLORA_CHECK(!files.empty(), data,
              "{}: no votes here; give judgment files, or store some (qlora judge import)", db);
  check_claims(files);
  return files;
}

LoadedVotes load_votes(const VoteSource& source) {
  LoadedVotes loaded;
  loaded.files = read(source);
  std::vector<std::string> systems = source.systems;
  if (!source.preset.empty()) {
    const Preset& known = preset(source.preset);
    if (systems.empty()) systems.assign(known.systems.begin(), known.systems.end());
  }
  if (!systems.empty()) {
    const std::set<std::string> all = systems_of(loaded.files);
    loaded.files =
        only_between(loaded.files, systems, source.systems.empty() ? "preset " + source.preset : "--systems");
    const std::set<std::string> kept = systems_of(loaded.files);
    for (const std::string& name : all)
      if (kept.count(name) == 0) loaded.left_out.push_back(name);
    QLORA_CHECK(!loaded.files.empty(), data, "no vote is between two of {}", fmt::join(systems, ", "));
  }
  for (const JudgmentFile& file : loaded.files) {
    loaded.reversed += file.reversed;
    if (file.order != OrderSource::name) continue;
    ++loaded.by_name;
    loaded.with_ids += std::any_of(file.votes.begin(), file.votes.end(),
                                   [](const Vote& vote) { return !vote.first_answer.empty(); });
  }
  return loaded;
}

std::string note_of(const LoadedVotes& loaded, const VoteSource& source) {
  std::string note;
  if (!loaded.left_out.empty())
    note +=
        fmt::format("Left out: {} (not {}).\n", fmt::join(loaded.left_out, ", "),
                    source.systems.empty() ? "of preset " + source.preset : "among the systems asked for");
  if (loaded.reversed > 0)
    note += fmt::format(
        "{} of {} files show the two systems in the opposite order to their names, by the answers' "
        "ids.\n",
        loaded.reversed, loaded.files.size());
  if (loaded.by_name > 0)
    note += fmt::format(
        "Who was shown first is known by the names of {} of {} files alone{}.\n", loaded.by_name,
        loaded.files.size(),
        loaded.with_ids == 0 ? ""
        : loaded.with_ids == loaded.by_name
            ? "; --answers can check it"
            : fmt::format("; {} of them have ids of answers that --answers can check", loaded.with_ids));
  return note;
}

}  // namespace qlora
