#pragma once
// CSV records by RFC 4180: fields separated by a comma (or tab), quoted fields with doubled quotes and line
// breaks inside, LF or CRLF line ends. Text stays as written.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qlora {

class CsvReader {
 public:
  // `origin` names the text in messages (a path). The text must outlive the reader.
  CsvReader(std::string_view text, std::string origin, char separator = ',')
      : text_(text), origin_(std::move(origin)), separator_(separator) {}

  // The next record, or nothing at the end. Empty lines are skipped. Throws Error(data) with origin and line
  // for a quote that never ends or text after a closing quote.
  std::optional<std::vector<std::string>> next();
  // The line (from 1) on which the last record began.
  int line() const { return record_line_; }

 private:
  std::string field();

  std::string_view text_;
  std::string origin_;
  char separator_;
  size_t at_ = 0;
  int line_ = 1, record_line_ = 0;
};

}  // namespace qlora
