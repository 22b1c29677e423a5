// .csv and .tsv with a header row.

#include "datasets/csv.h"
#include "datasets/reader.h"

namespace qlora {
namespace {

// True when `text` is well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF).
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    auto byte = [&](size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u; };
    auto continues = [&](size_t k) { return (byte(k) & 0xC0u) == 0x80u; };
    unsigned lead = byte(0);
    size_t length = lead < 0x80   ? 1
                    : lead < 0xC2 ? 0
                    : lead < 0xE0 ? 2
                    : lead < 0xF0 ? 3
                    : lead < 0xF5 ? 4
                                  : 0;
    if (length == 0) return false;
    for (size_t k = 1; k < length; ++k)
      if (!continues(k)) return false;
    if (lead == 0xE0 && byte(1) < 0xA0) return false;
    if (lead == 0xED && byte(1) > 0x9F) return false;
    if (lead == 0xF0 && byte(1) < 0x90) return false;
    if (lead == 0xF4 && byte(1) > 0x8F) return false;
    i += length;
  }
  return true;
}

}  // namespace

std::vector<Record> parse_separated(const Path& path, std::string_view content, char separator) {
  CsvReader rows(content, path.string(), separator);
  std::optional<std::vector<std::string>> header = rows.next();
  std::vector<Record> records;
  while (std::optional<std::vector<std::string>> fields = rows.next()) {
    Record record;
    record.where = {.file = path.string(), .line = rows.line()};
    QLORA_CHECK(fields->size() == header->size(), data, "{}: {} fields, but the first row names {}",
                record.where.text(), fields->size(), header->size());
    for (size_t i = 0; i < fields->size(); ++i) {
      std::string& field = (*fields)[i];
      QLORA_CHECK(is_utf8(field), data, "{}: field `{}` is not UTF-8", record.where.text(), (*header)[i]);
      record.fields[(*header)[i]].text = std::move(field);
    }
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace qlora
