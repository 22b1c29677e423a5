#include "experiments/vote_source.h"

#include <set>

#include "core/base/check.h"
#include "eval/judge/answer_ids.h"
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
    loaded.by_name += file.order == OrderSource::name;
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
        "Who was shown first is known by the names of {} of {} files alone; --answers can check it.\n",
        loaded.by_name, loaded.files.size());
  return note;
}

}  // namespace qlora
