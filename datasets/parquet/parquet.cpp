#include "datasets/parquet/parquet.h"

#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/text/utf8.h"
#include "datasets/parquet/page.h"

namespace qlora {
namespace {

constexpr std::string_view kMagic = "PAR1";
constexpr const char* kTypes[] = {"BOOLEAN", "INT32",  "INT64",      "INT96",
                                  "FLOAT",   "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"};

const ThriftValue& need(const ThriftValue& record, int id, const char* what, const std::string& origin) {
  const ThriftValue* value = record.field(id);
  QLORA_CHECK(value != nullptr, data, "{}: damaged: its footer has no {}", origin, what);
  return *value;
}

// The schema is a tree in depth-first order; its leaves are the columns.
class SchemaReader {
 public:
  SchemaReader(const ThriftValue& nodes, const std::string& origin) : nodes_(nodes), origin_(origin) {}

  std::vector<ParquetLeaf> leaves() {
    QLORA_CHECK(!nodes_.list.empty(), data, "{}: damaged: its schema is empty", origin_);
    const int64_t children = children_of(nodes_.list[at_++]);
    for (int64_t i = 0; i < children; ++i) node({});
    return std::move(leaves_);
  }

 private:
  static int64_t children_of(const ThriftValue& node) {
    const ThriftValue* children = node.field(5);
    return children == nullptr ? 0 : children->integer;
  }

  // What the values of a column stand for, where that is neither text nor a number as it is; else null. By
  // the schema's LogicalType (a union, whose one field says which) and, of older files, ConvertedType.
  static const char* meaning_of(const ThriftValue& node) {
    static const std::map<int64_t, const char*> kLogical = {{5, "DECIMAL"},   {6, "DATE"},  {7, "TIME"},
                                                            {8, "TIMESTAMP"}, {14, "UUID"}, {15, "FLOAT16"}};
    static const std::map<int64_t, const char*> kConverted = {
        {5, "DECIMAL"},   {6, "DATE"},       {7, "TIME"},     {8, "TIME"},
        {9, "TIMESTAMP"}, {10, "TIMESTAMP"}, {21, "INTERVAL"}};
    if (const ThriftValue* logical = node.field(10); logical != nullptr && !logical->record.empty()) {
      const auto found = kLogical.find(logical->record.begin()->first);
      return found == kLogical.end() ? nullptr : found->second;
    }
    const ThriftValue* converted = node.field(6);
    if (converted == nullptr) return nullptr;
    const auto found = kConverted.find(converted->integer);
    return found == kConverted.end() ? nullptr : found->second;
  }

  void node(ParquetLeaf above) {
    QLORA_CHECK(at_ < nodes_.list.size() && above.path.size() < 16, data,
                "{}: damaged: its schema ends early", origin_);
    const ThriftValue& here = nodes_.list[at_++];
    above.path.emplace_back(need(here, 4, "name of a column", origin_).binary);
    const ThriftValue* repetition = here.field(3);
    const int repeats = repetition == nullptr ? 0 : static_cast<int>(repetition->integer);
    above.repetition.push_back(repeats);
    above.max_definition += repeats > 0 ? 1 : 0;
    above.max_repetition += repeats == 2 ? 1 : 0;
    if (const int64_t children = children_of(here); children > 0) {
      for (int64_t i = 0; i < children; ++i) node(above);
      return;
    }
    const int64_t type = need(here, 1, "type of a column", origin_).integer;
    QLORA_CHECK(type >= 0 && type < 8 && type != 3 && type != 7, data,
                "{}: column {} has type {}; this reader knows text, whole numbers, reals and booleans",
                origin_, above.name(), type >= 0 && type < 8 ? kTypes[type] : "unknown");
    const char* meaning = meaning_of(here);
    QLORA_CHECK(meaning == nullptr, data,
                "{}: column {} has type {}; this reader knows text, whole numbers, reals and booleans",
                origin_, above.name(), meaning);
    QLORA_CHECK(above.max_repetition <= 1, data, "{}: column {} is a list inside a list", origin_,
                above.name());
    above.type = static_cast<int>(type);
    leaves_.push_back(std::move(above));
  }

  const ThriftValue& nodes_;
  const std::string& origin_;
  size_t at_ = 0;
  std::vector<ParquetLeaf> leaves_;
};

// Lists are groups whose only child is repeated and called one of these; only the group's name is shown.
bool is_list_body(const ParquetLeaf& leaf, size_t i) {
  const std::string& name = leaf.path[i];
  return i > 0 && leaf.repetition[i] == 2 &&
         (name == "list" || name == "bag" || name == "array" || name.ends_with("_tuple"));
}
// Of three-level lists the repeated node wraps the element.
bool wraps_element(const ParquetLeaf& leaf, size_t i) {
  return i + 1 < leaf.path.size() && (leaf.path[i] == "list" || leaf.path[i] == "bag");
}

// Puts the entries of a leaf into their rows.
class Assembler {
 public:
  explicit Assembler(const ParquetLeaf& leaf) : leaf_(leaf) {}

  // A definition says how many of the nodes that may be missing are there; what is not there stays null or an
  // empty list.
  void put(Json& row, int repetition, int definition, const Json* value) {
    element_ = repetition == 0 ? 0 : element_ + 1;
    Json* at = &row;
    int level = 0;
    const auto missing = [&](size_t i) { return leaf_.repetition[i] > 0 && definition <= level++; };
    for (size_t i = 0; i < leaf_.path.size(); ++i) {
      if (!is_list_body(leaf_, i)) at = &child(*at, leaf_.path[i]);
      if (leaf_.repetition[i] == 2 && !at->is_array()) *at = Json::array();
      if (missing(i)) return;
      if (leaf_.repetition[i] != 2) continue;
      while (at->size() <= element_) at->push_back(nullptr);
      at = &(*at)[element_];
      if (wraps_element(leaf_, i) && missing(++i)) return;
    }
    *at = *value;
  }

 private:
  static Json& child(Json& parent, const std::string& name) {
    if (!parent.is_object()) parent = Json::object();
    return parent[name];
  }

  const ParquetLeaf& leaf_;
  size_t element_ = 0;
};

// `row` counts from 1.
void check_text(const Json& value, const ParquetLeaf& leaf, size_t row, const std::string& origin) {
  if (!value.is_string()) return;
  const std::string& text = value.get_ref<const std::string&>();
  QLORA_CHECK(invalid_utf8(text) == text.size(), data, "{}: row {}: column {} is not UTF-8 text", origin, row,
              leaf.name());
}

void add_column(std::vector<Json>& rows, size_t first, size_t count, const ParquetLeaf& leaf,
                const ParquetColumn& column, const std::string& origin) {
  Assembler assembler(leaf);
  size_t row = 0, value = 0;
  for (size_t i = 0; i < column.definitions.size(); ++i) {
    if (column.repetitions[i] == 0) ++row;
    QLORA_CHECK(row >= 1 && row <= count, data,
                "{}: damaged: column {} has more rows than the {} of its group", origin, leaf.name(), count);
    const bool present = column.definitions[i] == leaf.max_definition;
    QLORA_CHECK(!present || value < column.values.size(), data, "{}: damaged: column {} lacks values", origin,
                leaf.name());
    if (present) check_text(column.values[value], leaf, first + row, origin);
    assembler.put(rows[first + row - 1], column.repetitions[i], column.definitions[i],
                  present ? &column.values[value++] : nullptr);
  }
  QLORA_CHECK(row == count, data, "{}: damaged: column {} has {} rows, its group {}", origin, leaf.name(),
              row, count);
}

}  // namespace

std::vector<Json> parse_parquet(std::string_view bytes, const std::string& origin) {
  QLORA_CHECK(bytes.size() >= 12 && bytes.starts_with(kMagic) && bytes.ends_with(kMagic), data,
              "{}: not a whole Parquet file (it must begin and end with PAR1)", origin);
  uint64_t size = 0;
  for (size_t i = 0; i < 4; ++i)
    size |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[bytes.size() - 8 + i])) << (8 * i);
  QLORA_CHECK(size <= bytes.size() - 12, data, "{}: damaged: a footer of {} bytes in a file of {}", origin,
              size, bytes.size());
  size_t at = bytes.size() - 8 - size;
  const ThriftValue footer = read_thrift_struct(bytes.substr(0, bytes.size() - 8), at, origin);
  const std::vector<ParquetLeaf> leaves = SchemaReader(need(footer, 2, "schema", origin), origin).leaves();
  std::vector<Json> rows;
  for (const ThriftValue& group : need(footer, 4, "row groups", origin).list) {
    const auto& chunks = need(group, 1, "columns", origin).list;
    const int64_t count = need(group, 3, "number of rows", origin).integer;
    QLORA_CHECK(chunks.size() == leaves.size(), data, "{}: damaged: a group of {} columns, the schema has {}",
                origin, chunks.size(), leaves.size());
    const size_t first = rows.size();
    for (size_t i = 0; i < leaves.size(); ++i) {
      const ThriftValue& chunk = need(chunks[i], 3, "place of a column", origin);
      const ParquetColumn column = read_parquet_column(bytes, chunk, leaves[i], origin);
      // Every row has an entry, so that a damaged count reserves nothing.
      QLORA_CHECK(count >= 0 && static_cast<uint64_t>(count) <= column.definitions.size(), data,
                  "{}: damaged: column {} has {} values for {} rows", origin, leaves[i].name(),
                  column.definitions.size(), count);
      if (i == 0) rows.resize(first + static_cast<size_t>(count), Json::object());
      add_column(rows, first, static_cast<size_t>(count), leaves[i], column, origin);
    }
  }
  return rows;
}

std::vector<Json> read_parquet(const Path& file) {
  return parse_parquet(read_file(file), file.string());
}

}  // namespace qlora
