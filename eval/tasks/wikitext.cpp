// WikiText-2 by page (Merity et al. 2016), with the spaces that its tokenization put in taken out again.
// Perplexities are divided by the words and bytes of the page as the data set has it.
#include "eval/tasks/task.h"

namespace qlora {
namespace {

// Takes white space off the inside of each pair of marks, pairs found from left to right.
std::string tightened(const std::string& text, char open, char close) {
  std::string out;
  size_t at = 0;
  for (;;) {
    const size_t begin = text.find(open, at);
    const size_t end = begin == std::string::npos ? begin : text.find(close, begin + 1);
    if (end == std::string::npos) return out + text.substr(at);
    out += text.substr(at, begin + 1 - at) + trim(std::string_view(text).substr(begin + 1, end - begin - 1)) +
           close;
    at = end + 1;
  }
}

std::string detokenized(std::string text) {
  auto replace = [&](std::string_view from, std::string_view to) { text = replace_all(text, from, to); };
  replace("s '", "s'");
  replace(" @-@ ", "-");
  replace(" @,@ ", ",");
  replace(" @.@ ", ".");
  for (const char* mark : {":", ";", ".", "!", "?", ","})
    replace(std::string(" ") + mark + " ", std::string(mark) + " ");
  text = tightened(text, '(', ')');
  text = tightened(text, '[', ']');
  text = tightened(text, '{', '}');
  text = tightened(text, '"', '"');
  text = tightened(text, '\'', '\'');
  replace("= = = =", "====");
  replace("= = =", "===");
  replace("= =", "==");
  replace(" \u00B0 ", "\u00B0");
  replace(" \n", "\n");
  replace("\n ", "\n");
  replace(" N ", " 1 ");
  replace(" 's", "'s");
  return text;
}

TaskItem item_of(const DataRow& row) {
  const std::string page = row.text("page");
  return text_item(row.json(), detokenized(page), page);
}

}  // namespace

Task wikitext() {
  Task task{.name = "wikitext", .version = "2.0", .kind = TaskKind::rolling};
  task.about = "perplexity of WikiText-2's pages";
  task.files = {"wikitext_test.jsonl"};
  task.takes_shots = false;
  task.metrics = {{"word_perplexity", Aggregation::weighted_perplexity, false},
                  {"byte_perplexity", Aggregation::weighted_perplexity, false},
                  {"bits_per_byte", Aggregation::weighted_bits, false}};
  task.items = items_of_rows<item_of>;
  task.value = rolling_value;
  return task;
}

}  // namespace qlora
