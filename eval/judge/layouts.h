#pragma once
// The layouts of judgment files, one reader and one writer each. A further layout is one file beside
// layout_fastchat.cpp and one line in layouts.cpp.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "eval/judge/file_name.h"
#include "eval/judge/rows.h"
#include "eval/judge/vote.h"

namespace qlora {

// What a reader knows beside the row.
struct JudgmentSource {
  std::string path;
  std::string digits;                // the first 12 hexadecimal digits of the content's SHA-256
  std::optional<JudgmentName> name;  // only where the layout is `named`
};

// A battle in which the voter saw whose answers they are (Chatbot Arena's anony: false).
bool names_were_shown(const Row&);

struct JudgmentLayout {
  std::string_view name, about;
  bool named;  // the systems stand in the file's name alone
  // Whether a file that begins with this row is of this layout: by the names of its fields.
  bool (*fits)(const Row&);
  // Appends the votes of one row. Throws Error(data) with file, line and field.
  void (*read)(const Row&, const JudgmentSource&, std::vector<Vote>&);
  // File names and contents. Throws Error(usage) for votes that the layout cannot hold, rather than lose
  // anything of them that counts.
  std::map<std::string, std::string> (*write)(std::span<const Vote>);
};

// qlora, fastchat-pair, fastchat-single, arena, alpaca-eval, human-csv.
std::span<const JudgmentLayout> layouts();
// Throws Error(usage) with the nearest name.
const JudgmentLayout& layout(const std::string& name);

// Whether a file's name ends in .csv or .csv.gz and its header is human-csv's. Throws Error(data) for a file
// that cannot be read.
bool is_human_csv(const Path&);

// For layouts.cpp.
extern const JudgmentLayout kQloraLayout, kFastchatPairLayout, kFastchatSingleLayout, kArenaLayout, kAlpacaEvalLayout,
    kHumanCsvLayout;

}  // namespace qlora
