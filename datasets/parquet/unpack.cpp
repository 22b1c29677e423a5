#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <limits>

#include "core/base/check.h"
#include "datasets/parquet/page.h"

namespace qlora {
namespace {

bool gunzip(std::string_view packed, std::string& into) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 32) != Z_OK) return false;  // 32: gzip and zlib headers
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(into.data());
  stream.avail_out = static_cast<uInt>(into.size());
  const int status = inflate(&stream, Z_FINISH);
  const bool whole = status == Z_STREAM_END && stream.avail_out == 0;
  inflateEnd(&stream);
  return whole;
}

}  // namespace

std::string unpack_parquet(std::string_view packed, size_t size, int64_t codec, const std::string& origin) {
  constexpr size_t kLargest = size_t{1} << 30;
  QLORA_CHECK(size <= kLargest && packed.size() <= kLargest, data, "{}: damaged: a page of {} bytes", origin,
              size);
  std::string plain(size, '\0');
  bool good = false;
  switch (codec) {
    case 0:
      QLORA_CHECK(packed.size() == size, data, "{}: damaged: a page has {} bytes, its header says {}", origin,
                  packed.size(), size);
      return std::string(packed);
    case 1: {
      size_t announced = 0;
      good = snappy::GetUncompressedLength(packed.data(), packed.size(), &announced) && announced == size &&
             snappy::RawUncompress(packed.data(), packed.size(), plain.data());
      break;
    }
    case 2:
      good = gunzip(packed, plain);
      break;
    case 6:
      good = ZSTD_decompress(plain.data(), size, packed.data(), packed.size()) == size;
      break;
    default:
      fail(ErrorKind::data,
           "{}: packed by codec {} of Parquet; this reader knows none, snappy, gzip and zstd: write the file "
           "again",
           origin, codec);
  }
  QLORA_CHECK(good, data, "{}: damaged: a page cannot be unpacked to the {} bytes that its header says",
              origin, size);
  return plain;
}

}  // namespace qlora
