#include "datasets/parquet/page.h"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/check.h"

namespace qlora {
namespace {

int64_t number(const ThriftValue& record, int id, const char* what, const std::string& origin) {
  const ThriftValue* value = record.field(id);
  QLORA_CHECK(value != nullptr && value->kind == ThriftValue::Kind::integer, data, "{}: damaged: no {}",
              origin, what);
  return value->integer;
}

// Bytes that are taken from the front.
class Cursor {
 public:
  Cursor(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}
  std::string_view take(uint64_t n) {
    QLORA_CHECK(n <= bytes_.size(), data, "{}: damaged: a page ends early", origin_);
    std::string_view part = bytes_.substr(0, n);
    bytes_.remove_prefix(n);
    return part;
  }
  uint64_t little(size_t n) {
    const std::string_view part = take(n);
    uint64_t value = 0;
    for (size_t i = 0; i < n; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(part[i])) << (8 * i);
    return value;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint64_t b = little(1);
      value |= (b & 0x7f) << shift;
      if ((b & 0x80) == 0) return value;
    }
    fail(ErrorKind::data, "{}: damaged: a number of more than 64 bits", origin_);
  }
  std::string_view rest() const { return bytes_; }
  const std::string& origin() const { return origin_; }

 private:
  std::string_view bytes_;
  const std::string& origin_;
};

// The hybrid of runs and packed bits: `count` numbers of `width` bits each.
std::vector<uint32_t> read_hybrid(Cursor cursor, int width, size_t count) {
  std::vector<uint32_t> values;
  values.reserve(count);
  if (width == 0) return std::vector<uint32_t>(count, 0);
  QLORA_CHECK(width <= 32, data, "{}: damaged: numbers of {} bits", cursor.origin(), width);
  while (values.size() < count) {
    const uint64_t head = cursor.varint();
    if ((head & 1) == 0) {
      const auto value = static_cast<uint32_t>(cursor.little((static_cast<size_t>(width) + 7) / 8));
      const uint64_t run = std::min<uint64_t>(head >> 1, count - values.size());
      QLORA_CHECK(run > 0, data, "{}: damaged: a run of nothing", cursor.origin());
      values.insert(values.end(), run, value);
      continue;
    }
    const uint64_t groups = head >> 1;
    QLORA_CHECK(groups > 0 && groups <= cursor.rest().size(), data, "{}: damaged: {} groups of bits",
                cursor.origin(), groups);
    const std::string_view bits = cursor.take(groups * static_cast<uint64_t>(width));
    for (uint64_t i = 0; i < groups * 8 && values.size() < count; ++i) {
      uint32_t value = 0;
      for (int b = 0; b < width; ++b) {
        const uint64_t bit = i * static_cast<uint64_t>(width) + static_cast<uint64_t>(b);
        value |= ((static_cast<uint32_t>(static_cast<uint8_t>(bits[bit / 8])) >> (bit % 8)) & 1u) << b;
      }
      values.push_back(value);
    }
  }
  return values;
}

std::vector<Json> read_plain(Cursor cursor, const ParquetLeaf& leaf, size_t count) {
  std::vector<Json> values;
  if (leaf.type == 0) {
    const std::string_view bits = cursor.take((count + 7) / 8);
    for (size_t i = 0; i < count; ++i)
      values.emplace_back(((static_cast<uint8_t>(bits[i / 8]) >> (i % 8)) & 1) != 0);
    return values;
  }
  for (size_t i = 0; i < count; ++i) {
    switch (leaf.type) {
      case 1:
        values.emplace_back(static_cast<int32_t>(cursor.little(4)));
        break;
      case 2:
        values.emplace_back(static_cast<int64_t>(cursor.little(8)));
        break;
      case 4:
        values.emplace_back(
            static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(cursor.little(4)))));
        break;
      case 5:
        values.emplace_back(std::bit_cast<double>(cursor.little(8)));
        break;
      default: {
        values.emplace_back(std::string(cursor.take(cursor.little(4))));
      }
    }
  }
  return values;
}

int width_of(int most) {
  return std::bit_width(static_cast<unsigned>(most));
}

std::vector<uint8_t> read_levels(const Cursor& cursor, int most, size_t count) {
  std::vector<uint8_t> levels;
  levels.reserve(count);
  for (uint32_t level : read_hybrid(cursor, width_of(most), count)) {
    QLORA_CHECK(level <= static_cast<uint32_t>(most), data, "{}: damaged: level {} of {}", cursor.origin(),
                level, most);
    levels.push_back(static_cast<uint8_t>(level));
  }
  return levels;
}

// One chunk, page after page.
class ChunkReader {
 public:
  ChunkReader(const ParquetLeaf& leaf, int64_t codec, const std::string& origin)
      : leaf_(leaf), codec_(codec), origin_(origin) {}

  void page(const ThriftValue& header, std::string_view body) {
    const int64_t type = number(header, 1, "page type", origin_);
    const auto plain_size = static_cast<size_t>(number(header, 2, "page size", origin_));
    if (type == 2) {
      const ThriftValue* dictionary = header.field(7);
      QLORA_CHECK(dictionary != nullptr, data, "{}: damaged: a dictionary page without its header", origin_);
      const std::string plain = unpack_parquet(body, plain_size, codec_, origin_);
      dictionary_ = read_plain({plain, origin_}, leaf_,
                               static_cast<size_t>(number(*dictionary, 1, "dictionary size", origin_)));
    } else if (type == 0) {
      const ThriftValue* data = header.field(5);
      QLORA_CHECK(data != nullptr, data, "{}: damaged: a data page without its header", origin_);
      const std::string plain = unpack_parquet(body, plain_size, codec_, origin_);
      Cursor cursor(plain, origin_);
      const auto count = static_cast<size_t>(number(*data, 1, "number of values", origin_));
      std::string_view repetitions, definitions;
      if (leaf_.max_repetition > 0) repetitions = cursor.take(cursor.little(4));
      if (leaf_.max_definition > 0) definitions = cursor.take(cursor.little(4));
      entries(count, repetitions, definitions, number(*data, 2, "encoding", origin_), cursor);
    } else if (type == 3) {
      const ThriftValue* data = header.field(8);
      QLORA_CHECK(data != nullptr, data, "{}: damaged: a data page without its header", origin_);
      second_version(*data, body, plain_size);
    }  // other pages (indexes) hold no values
  }
  ParquetColumn column;

 private:
  void second_version(const ThriftValue& data, std::string_view body, size_t plain_size) {
    const auto definition_size = static_cast<uint64_t>(number(data, 5, "size of levels", origin_));
    const auto repetition_size = static_cast<uint64_t>(number(data, 6, "size of levels", origin_));
    Cursor cursor(body, origin_);
    const std::string_view repetitions = cursor.take(repetition_size),
                           definitions = cursor.take(definition_size);
    QLORA_CHECK(plain_size >= repetition_size + definition_size, data,
                "{}: damaged: a page smaller than its levels", origin_);
    const ThriftValue* packed = data.field(7);
    const int64_t codec = packed != nullptr && packed->integer == 0 ? 0 : codec_;
    const std::string plain =
        unpack_parquet(cursor.rest(), plain_size - repetition_size - definition_size, codec, origin_);
    entries(static_cast<size_t>(number(data, 1, "number of values", origin_)), repetitions, definitions,
            number(data, 4, "encoding", origin_), Cursor(plain, origin_));
  }

  void entries(size_t count, std::string_view repetitions, std::string_view definitions, int64_t encoding,
               Cursor cursor) {
    QLORA_CHECK(count <= (size_t{1} << 27), data, "{}: damaged: a page of {} values", origin_, count);
    const auto levels = [&](std::string_view bytes, int most, std::vector<uint8_t>& into) {
      const std::vector<uint8_t> read = read_levels({bytes, origin_}, most, count);
      into.insert(into.end(), read.begin(), read.end());
      return read;
    };
    levels(repetitions, leaf_.max_repetition, column.repetitions);
    size_t present = 0;
    for (uint8_t d : levels(definitions, leaf_.max_definition, column.definitions))
      present += d == leaf_.max_definition ? 1 : 0;
    append(read_values(encoding, cursor, present));
  }

  std::vector<Json> read_values(int64_t encoding, Cursor cursor, size_t present) {
    if (encoding == 0) return read_plain(cursor, leaf_, present);
    if (encoding == 3 && leaf_.type == 0) {  // booleans of the second version: a size, then runs
      std::vector<Json> values;
      const std::string_view runs = cursor.take(cursor.little(4));
      for (uint32_t bit : read_hybrid({runs, origin_}, 1, present)) values.emplace_back(bit != 0);
      return values;
    }
    QLORA_CHECK(
        encoding == 2 || encoding == 8, data,
        "{}: encoding {} of Parquet is not known to this reader (plain and dictionary are): write the file "
        "again",
        origin_, encoding);
    std::vector<Json> values;
    if (present == 0) return values;
    const auto width = static_cast<int>(cursor.little(1));
    for (uint32_t index : read_hybrid(cursor, width, present)) {
      QLORA_CHECK(index < dictionary_.size(), data, "{}: damaged: entry {} of a dictionary of {}", origin_,
                  index, dictionary_.size());
      values.push_back(dictionary_[index]);
    }
    return values;
  }

  void append(std::vector<Json> values) {
    for (Json& value : values) column.values.push_back(std::move(value));
  }

  const ParquetLeaf& leaf_;
  int64_t codec_;
  const std::string& origin_;
  std::vector<Json> dictionary_;
};

}  // namespace

std::string ParquetLeaf::name() const {
  std::string text;
  for (const std::string& part : path) text += (text.empty() ? "" : ".") + part;
  return text;
}

ParquetColumn read_parquet_column(std::string_view bytes, const ThriftValue& chunk, const ParquetLeaf& leaf,
                                  const std::string& origin) {
  const std::string place = fmt::format("{}: column {}", origin, leaf.name());
  const auto wanted = static_cast<size_t>(number(chunk, 5, "number of values", place));
  int64_t begin = number(chunk, 9, "place of its pages", place);
  if (const ThriftValue* dictionary = chunk.field(11)) begin = std::min(begin, dictionary->integer);
  QLORA_CHECK(begin >= 0 && static_cast<uint64_t>(begin) < bytes.size(), data,
              "{}: damaged: its pages begin at {} of {} bytes", place, begin, bytes.size());
  ChunkReader reader(leaf, number(chunk, 4, "codec", place), place);
  for (auto at = static_cast<size_t>(begin); reader.column.definitions.size() < wanted;) {
    const ThriftValue header = read_thrift_struct(bytes, at, place);
    const int64_t packed = number(header, 3, "packed page size", place);
    QLORA_CHECK(packed >= 0 && static_cast<uint64_t>(packed) <= bytes.size() - at, data,
                "{}: cut short: a page of {} bytes", place, packed);
    reader.page(header, bytes.substr(at, static_cast<size_t>(packed)));
    at += static_cast<size_t>(packed);
  }
  return std::move(reader.column);
}

}  // namespace qlora
