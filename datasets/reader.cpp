#include "datasets/reader.h"

#include "core/base/names.h"

namespace qlora {
namespace {

using Reader = std::vector<Record> (*)(const Path&, std::string_view content);

std::vector<Record> parse_csv(const Path& path, std::string_view content) {
  return parse_separated(path, content, ',');
}
std::vector<Record> parse_tsv(const Path& path, std::string_view content) {
  return parse_separated(path, content, '\t');
}

struct Row {
  const char* extension;
  Reader reader;
};
constexpr Row kReaders[] = {
    {".json", parse_json_records}, {".jsonl", parse_json_lines},        {".csv", parse_csv},
    {".tsv", parse_tsv},           {".parquet", parse_parquet_records},
};

}  // namespace

std::vector<std::string> data_extensions() {
  std::vector<std::string> out;
  for (const Row& row : kReaders) out.emplace_back(row.extension);
  return out;
}

std::vector<Record> parse_records(const Path& path, std::string_view content) {
  Path plain = path.extension() == ".gz" ? path.stem() : path;
  std::string extension = plain.extension().string();
  if (content.starts_with("\xEF\xBB\xBF")) content.remove_prefix(3);  // some editors write a byte-order mark
  for (const Row& row : kReaders) {
    if (extension != row.extension) continue;
    std::vector<Record> records = row.reader(path, content);
    QLORA_CHECK(!records.empty(), data, "{}: no records", path.string());
    return records;
  }
  fail(ErrorKind::data, "{}: {}", path.string(),
       unknown_name("data file type", extension, data_extensions()));
}

}  // namespace qlora
