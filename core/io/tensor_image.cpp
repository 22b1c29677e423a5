#include "core/io/tensor_image.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/check.h"
#include "core/base/json.h"

namespace qlora {
namespace {

constexpr char kMagic[16] = "QLORATENSORS1\n";
constexpr size_t kDataBegin = 4096, kAlignment = 256;
// Pages of a file that was written by whole huge pages are huge in the system's cache, on file systems that
// have such; mapped by small ones, a gigabyte is read at two thirds of the speed.
constexpr size_t kPieceBytes = size_t{2} << 20;
constexpr size_t kSampleBytes = 4096, kSampleStride = size_t{4} << 20;

struct Footer {
  uint64_t offset = 0, length = 0;
  Digest digest{};
  char magic[sizeof kMagic] = {};
};
static_assert(sizeof(Footer) == 64);

std::optional<DType> type_from(const std::string& name) {
  for (auto i = static_cast<int>(DType::f32); i <= static_cast<int>(DType::boolean); ++i)
    if (name == name_of(static_cast<DType>(i))) return static_cast<DType>(i);
  return std::nullopt;
}

// Bytes of an array; nothing when they cannot be counted.
std::optional<size_t> bytes_of(DType type, const std::vector<int64_t>& shape) {
  auto n = static_cast<int64_t>(size_of(type));
  for (int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(n, size, &n)) return std::nullopt;
  return static_cast<size_t>(n);
}

bool is_magic(const void* p) {
  return std::memcmp(p, kMagic, sizeof kMagic) == 0;
}

}  // namespace

void SampledHash::update(std::span<const std::byte> array) {
  for (size_t at = 0; at < array.size(); at += kSampleStride)
    hash_.update(array.subspan(at, std::min(kSampleBytes, array.size() - at)));
  if (array.size() > kSampleBytes) hash_.update(array.last(kSampleBytes));
}

TensorImage::TensorImage(const Path& path) : file_(path) {
  const std::span<const std::byte> all = file_.bytes();
  const std::string name = path.string();
  QLORA_CHECK(all.size() >= sizeof kMagic && is_magic(all.data()), data,
              "{}: not a tensor image of this version of the program", name);
  Footer footer;
  if (all.size() >= kDataBegin + sizeof footer)
    std::memcpy(&footer, all.data() + all.size() - sizeof footer, sizeof footer);
  QLORA_CHECK(is_magic(footer.magic), data, "{}: cut short: its {} bytes have no end mark", name, all.size());
  const size_t end = all.size() - sizeof footer;
  QLORA_CHECK(footer.offset >= kDataBegin && footer.offset <= end && footer.length == end - footer.offset,
              data, "{}: damaged: the index is said to be at bytes {} to {}, and the end mark is at {}", name,
              footer.offset, footer.offset + footer.length, end);
  const std::span<const std::byte> index = all.subspan(footer.offset, footer.length);
  QLORA_CHECK(sha256(index) == footer.digest, data, "{}: damaged: the index has changed", name);
  read_index(index);
  file_.will_need();
  SampledHash sample;
  for (std::span<const std::byte> array : arrays()) sample.update(array);
  QLORA_CHECK(hex(sample.finish()) == sample_sha256_, data, "{}: damaged: bytes of its tensors have changed",
              name);
}

void TensorImage::read_index(std::span<const std::byte> index) {
  const std::string name = file_.path().string();
  try {
    const Json json =
        parse_json({reinterpret_cast<const char*>(index.data()), index.size()}, name + ": index");
    about_ = canonical(json.at("about"));
    data_sha256_ = json.at("data_sha256").get<std::string>();
    sample_sha256_ = json.at("sample_sha256").get<std::string>();
    const auto end = static_cast<size_t>(index.data() - file_.bytes().data());
    for (const auto& [tensor, entry] : json.at("tensors").items()) {
      TensorView view;
      const std::optional<DType> type = type_from(entry.at(0).get<std::string>());
      view.type = type.value_or(DType::u8);
      view.shape = entry.at(1).get<std::vector<int64_t>>();
      const auto offset = entry.at(2).get<size_t>();
      const std::optional<size_t> bytes = bytes_of(view.type, view.shape);
      QLORA_CHECK(type && bytes && offset % kAlignment == 0 && offset >= kDataBegin && offset <= end &&
                      *bytes <= end - offset,
                  data, "{}: damaged: tensor `{}` does not lie in it", name, tensor);
      view.bytes = file_.bytes().subspan(offset, *bytes);
      tensors_.emplace(tensor, std::move(view));
    }
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: damaged index: {}", name, e.what());
  }
}

std::vector<std::span<const std::byte>> TensorImage::arrays() const {
  std::vector<std::span<const std::byte>> arrays;
  for (const auto& [name, view] : tensors_) arrays.push_back(view.bytes);
  std::sort(arrays.begin(), arrays.end(), [](auto a, auto b) { return a.data() < b.data(); });
  return arrays;
}

const TensorView* TensorImage::find(std::string_view name) const {
  auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : &at->second;
}

void TensorImage::check_all() const {
  Sha256 data;
  for (std::span<const std::byte> array : arrays()) data.update(array);
  QLORA_CHECK(hex(data.finish()) == data_sha256_, data, "{}: damaged: bytes of its tensors have changed",
              path().string());
}

struct TensorImageWriter::Index {
  Json tensors = Json::object();
};

TensorImageWriter::TensorImageWriter(const Path& path) : file_(path), index_(std::make_unique<Index>()) {
  piece_.reserve(kPieceBytes);
  write(std::as_bytes(std::span(kMagic)));
  pad_to(kDataBegin);
}
TensorImageWriter::~TensorImageWriter() = default;

void TensorImageWriter::write(std::span<const std::byte> bytes) {
  at_ += bytes.size();
  while (!bytes.empty()) {
    const size_t n = std::min(kPieceBytes - piece_.size(), bytes.size());
    piece_.insert(piece_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    bytes = bytes.subspan(n);
    if (piece_.size() == kPieceBytes) flush_piece();
  }
}

void TensorImageWriter::flush_piece() {
  file_.write(piece_);
  piece_.clear();
}

void TensorImageWriter::pad_to(size_t multiple) {
  static constexpr std::byte kZeros[kDataBegin] = {};
  write(std::span(kZeros).first((multiple - at_ % multiple) % multiple));
}

void TensorImageWriter::add(const std::string& name, DType type, const std::vector<int64_t>& shape,
                            std::span<const std::byte> bytes) {
  QLORA_CHECK(!index_->tensors.contains(name) && bytes_of(type, shape) == bytes.size(), failure,
              "tensor image: `{}` is there already, or its {} bytes do not fill its shape [{}]", name,
              bytes.size(), fmt::join(shape, ", "));
  pad_to(kAlignment);
  index_->tensors[name] = {name_of(type), shape, at_};
  write(bytes);
  data_.update(bytes);
  sample_.update(bytes);
}

void TensorImageWriter::commit(const std::string& about) {
  pad_to(kAlignment);
  const std::string index = canonical({{"about", parse_json(about, "about")},
                                       {"data_sha256", hex(data_.finish())},
                                       {"sample_sha256", hex(sample_.finish())},
                                       {"tensors", index_->tensors}});
  Footer footer{.offset = at_, .length = index.size(), .digest = sha256(index)};
  std::memcpy(footer.magic, kMagic, sizeof kMagic);
  write(std::as_bytes(std::span(index)));
  write(std::as_bytes(std::span(&footer, 1)));
  flush_piece();
  file_.commit();
}

}  // namespace qlora
