#include "datasets/csv.h"

#include "core/base/check.h"

namespace qlora {

std::string CsvReader::field() {
  std::string out;
  if (at_ >= text_.size() || text_[at_] != '"') {
    while (at_ < text_.size() && text_[at_] != separator_ && text_[at_] != '\n') out += text_[at_++];
    if (!out.empty() && out.back() == '\r' && (at_ >= text_.size() || text_[at_] == '\n')) out.pop_back();
    return out;
  }
  const int opened = line_;
  for (++at_;; ++at_) {
    QLORA_CHECK(at_ < text_.size(), data, "{}:{}: a quoted field never ends; is the file cut off?", origin_,
                opened);
    if (text_[at_] == '"') {
      if (at_ + 1 >= text_.size() || text_[at_ + 1] != '"') break;
      ++at_;
    }
    if (text_[at_] == '\n') ++line_;
    out += text_[at_];
  }
  ++at_;
  if (at_ < text_.size() && text_[at_] == '\r') ++at_;
  QLORA_CHECK(at_ >= text_.size() || text_[at_] == separator_ || text_[at_] == '\n', data,
              "{}:{}: text after the closing quote of a field", origin_, line_);
  return out;
}

std::optional<std::vector<std::string>> CsvReader::next() {
  while (at_ < text_.size() && (text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n")) {
    at_ += text_[at_] == '\n' ? 1 : 2;
    ++line_;
  }
  if (at_ >= text_.size()) return std::nullopt;
  record_line_ = line_;
  std::vector<std::string> fields;
  for (;;) {
    fields.push_back(field());
    if (at_ >= text_.size()) return fields;
    if (text_[at_++] == '\n') {
      ++line_;
      return fields;
    }
  }
}

}  // namespace qlora
