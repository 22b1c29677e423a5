#include "eval/judge/known_systems.h"

#include "core/base/check.h"
#include "core/base/names.h"
#include "eval/judge/file_name.h"

namespace qlora {

KnownSystems known_systems(std::span<const JudgmentFile> files) {
  KnownSystems known;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes)
      for (const std::string* name : {&vote.first, &vote.second})
        if (!name->empty()) known.try_emplace(*name, fmt::format("{}:{}", file.path, vote.line));
  return known;
}

std::string find_system(const KnownSystems& known, const std::string& asked, std::string_view asked_by) {
  for (std::string name : {asked, system_alias(asked)})
    if (known.contains(name)) return name;
  std::vector<std::string> names, places;
  for (const auto& [name, place] : known) {
    names.push_back(name);
    places.push_back(fmt::format("{} ({})", name, place));
  }
  const std::string near = nearest(asked, names);
  fail(ErrorKind::usage, "{}{}unknown system `{}`; {}", asked_by, asked_by.empty() ? "" : ": ", asked,
       near.empty() ? fmt::format("known: {}", fmt::join(places, ", "))
                    : fmt::format("did you mean `{}` ({})?", near, known.at(near)));
}

}  // namespace qlora
