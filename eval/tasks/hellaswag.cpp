// HellaSwag (Zellers et al. 2019): which of four endings goes on with a description.
#include "core/text/regex.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"
#include "eval/tasks/task.h"

namespace qlora {
namespace {

// The first letter upper case, all others lower case.
std::string capitalized(const std::string& text) {
  if (text.empty()) return text;
  size_t at = 0;
  const char32_t first = next_code_point(text, at);
  return to_utf8(titlecase(first)) + lowercase(std::string_view(text).substr(at));
}

// WikiHow's texts have marks in brackets: [header], [step], [title].
std::string without_marks(const std::string& text) {
  static const Regex bracket(R"(\[.*?\])", "hellaswag");
  const std::string with_sentences = replace_all(trim(text), " [title]", ". ");
  std::string plain;
  size_t kept = 0;
  bracket.each_match(with_sentences, [&](size_t begin, size_t end) {
    plain += with_sentences.substr(kept, begin - kept);
    kept = end;
  });
  return replace_all(plain + with_sentences.substr(kept), "  ", " ");
}

TaskItem item_of(const DataRow& row) {
  const std::string context = row.text("ctx_a") + " " + capitalized(row.text("ctx_b"));
  std::vector<std::string> endings;
  for (const std::string& ending : row.texts("endings")) endings.push_back(without_marks(ending));
  return choice_item(row, without_marks(row.text("activity_label") + ": " + context), endings,
                     row.integer("label"));
}

}  // namespace

Task hellaswag() {
  return choice_task("hellaswag", "1.0", "which ending goes on with a description",
                     {"hellaswag_val.jsonl", "validation.jsonl"}, items_of_rows<item_of>);
}

}  // namespace qlora
