#include "datasets/parquet/thrift.h"

#include <cstring>

#include "core/base/check.h"

namespace qlora {
namespace {

constexpr int kDeepest = 32;

class CompactReader {
 public:
  CompactReader(std::string_view bytes, size_t& at, const std::string& origin)
      : bytes_(bytes), at_(at), origin_(origin) {}

  ThriftValue record(int depth) {
    QLORA_CHECK(depth < kDeepest, data, "{}: damaged: a structure nests more than {} deep", origin_,
                kDeepest);
    ThriftValue value;
    value.kind = ThriftValue::Kind::record;
    for (int64_t id = 0;;) {
      const uint8_t head = byte();
      if (head == 0) return value;
      id = (head >> 4) != 0 ? id + (head >> 4) : zigzag();
      const int type = head & 0x0f;
      ThriftValue& into = value.record[static_cast<int>(id)];
      if (type == 1 || type == 2) {
        into.kind = ThriftValue::Kind::boolean;
        into.integer = type == 1;
      } else {
        into = read(type, depth + 1);
      }
    }
  }

 private:
  uint8_t byte() {
    QLORA_CHECK(at_ < bytes_.size(), data, "{}: cut short inside a header", origin_);
    return static_cast<uint8_t>(bytes_[at_++]);
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t b = byte();
      value |= static_cast<uint64_t>(b & 0x7f) << shift;
      if ((b & 0x80) == 0) return value;
    }
    fail(ErrorKind::data, "{}: damaged: a number of more than 64 bits", origin_);
  }
  int64_t zigzag() {
    const uint64_t v = varint();
    return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
  }

  ThriftValue read(int type, int depth) {
    ThriftValue value;
    switch (type) {
      case 1:  // a boolean in a list is a byte of its own
      case 2:
        value.kind = ThriftValue::Kind::boolean;
        value.integer = byte() == 1;
        return value;
      case 3:
        value.integer = static_cast<int8_t>(byte());
        return value;
      case 4:
      case 5:
      case 6:
        value.integer = zigzag();
        return value;
      case 7: {
        value.kind = ThriftValue::Kind::real;
        uint64_t bits = 0;
        for (int i = 0; i < 8; ++i) bits |= static_cast<uint64_t>(byte()) << (8 * i);
        std::memcpy(&value.real, &bits, sizeof bits);
        return value;
      }
      case 8: {
        value.kind = ThriftValue::Kind::binary;
        const uint64_t size = varint();
        QLORA_CHECK(size <= bytes_.size() - at_, data, "{}: cut short inside a text of {} bytes", origin_,
                    size);
        value.binary = bytes_.substr(at_, size);
        at_ += size;
        return value;
      }
      case 9:
      case 10:
        return list(depth);
      case 12:
        return record(depth);
      default:
        fail(ErrorKind::data, "{}: damaged: unknown type {} in a header", origin_, type);
    }
  }

  ThriftValue list(int depth) {
    QLORA_CHECK(depth < kDeepest, data, "{}: damaged: a list nests more than {} deep", origin_, kDeepest);
    ThriftValue value;
    value.kind = ThriftValue::Kind::list;
    const uint8_t head = byte();
    const uint64_t size = (head >> 4) == 15 ? varint() : head >> 4;
    QLORA_CHECK(size <= bytes_.size() - at_, data, "{}: damaged: a list of {} values", origin_, size);
    for (uint64_t i = 0; i < size; ++i) value.list.push_back(read(head & 0x0f, depth + 1));
    return value;
  }

  std::string_view bytes_;
  size_t& at_;
  const std::string& origin_;
};

}  // namespace

ThriftValue read_thrift_struct(std::string_view bytes, size_t& at, const std::string& origin) {
  return CompactReader(bytes, at, origin).record(0);
}

}  // namespace qlora
