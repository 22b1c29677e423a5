#include "core/io/tensor_image.h"

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/base/test_data.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

struct Array {
  std::string name;
  DType type;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

// Odd sizes, an empty one, and one of more than a stride of the sample.
std::vector<Array> arrays() {
  std::vector<Array> all = {{"scale", DType::f32, {1}, {}},
                            {"none", DType::u8, {0}, {}},
                            {"codes", DType::u8, {13, 77}, {}},
                            {"wide", DType::bf16, {9, 1 << 18}, {}},
                            {"after", DType::f64, {3, 2}, {}}};
  for (Array& a : all) {
    size_t n = size_of(a.type);
    for (int64_t size : a.shape) n *= static_cast<size_t>(size);
    for (size_t i = 0; i < n; ++i) a.bytes.push_back(static_cast<uint8_t>(i * 31 + i / 253));
  }
  return all;
}

void write_image(const Path& path, const std::vector<Array>& all) {
  TensorImageWriter writer(path);
  for (const Array& a : all) writer.add(a.name, a.type, a.shape, std::as_bytes(std::span(a.bytes)));
  writer.commit(R"({"made": "here", "version": 3})");
}

std::string refusal(const Path& path) {
  try {
    TensorImage image(path);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::data);
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("an image gives back every tensor at an aligned place and what was said about it") {
  test::TemporaryFolder folder;
  const Path path = folder.path() / "x.base";
  const std::vector<Array> all = arrays();
  write_image(path, all);
  TensorImage image(path);
  CHECK(image.about() == R"({"made":"here","version":3})");
  CHECK(image.bytes() == std::filesystem::file_size(path));
  CHECK(image.tensors().size() == all.size());
  for (const Array& a : all) {
    INFO(a.name);
    const TensorView* view = image.find(a.name);
    REQUIRE(view != nullptr);
    CHECK(view->type == a.type);
    CHECK(view->shape == a.shape);
    CHECK(reinterpret_cast<uintptr_t>(view->bytes.data()) % 256 == 0);
    REQUIRE(view->bytes.size() == a.bytes.size());
    CHECK(std::equal(a.bytes.begin(), a.bytes.end(), reinterpret_cast<const uint8_t*>(view->bytes.data())));
  }
  CHECK(image.find("codez") == nullptr);
  image.check_all();
  TensorImageWriter writer(folder.path() / "y.base");
  writer.add("a", DType::u8, {1}, std::as_bytes(std::span("x", 1)));
  CHECK_THROWS_AS(writer.add("a", DType::u8, {1}, std::as_bytes(std::span("x", 1))), Error);
  CHECK_THROWS_AS(writer.add("b", DType::f32, {1}, std::as_bytes(std::span("x", 1))), Error);
}

TEST_CASE("an image that is cut anywhere or was not written to its end is refused") {
  test::TemporaryFolder folder;
  const Path path = folder.path() / "x.base";
  write_image(path, arrays());
  const std::string whole = read_file(path);
  for (size_t size : {size_t{0}, size_t{10}, size_t{64}, size_t{4096}, size_t{4160}, whole.size() / 2,
                      whole.size() - 64, whole.size() - 1}) {
    INFO(size << " of " << whole.size());
    write_file(path, whole.substr(0, size));
    CHECK_THAT(refusal(path), Contains(path.string()) && !Contains("accepted"));
  }
  // A piece in the middle is gone: every mark and hash of the end is intact.
  write_file(path, whole.substr(0, 5000) + whole.substr(5256));
  CHECK_THAT(refusal(path), Contains("damaged"));
  write_file(path, "GGUF" + whole.substr(4));
  CHECK_THAT(refusal(path), Contains("not a tensor image"));
}

TEST_CASE("a changed byte of an image is found where it matters at once and everywhere when asked") {
  test::TemporaryFolder folder;
  const Path path = folder.path() / "x.base";
  write_image(path, arrays());
  const std::string whole = read_file(path);
  auto changed = [&](size_t at) {
    std::string text = whole;
    text[at] = static_cast<char>(text[at] ^ 4);
    write_file(path, text);
    return refusal(path);
  };
  const TensorImage image(path);
  const auto offset = [&](const char* name) {
    return static_cast<size_t>(image.find(name)->bytes.data() - image.find("scale")->bytes.data()) + 4096;
  };
  const size_t wide = offset("wide"), size = image.find("wide")->bytes.size();
  for (size_t at : {offset("scale"), offset("codes") + 1000, wide, wide + (4 << 20) + 17, wide + size - 1})
    CHECK_THAT(changed(at), Contains("bytes of its tensors have changed"));
  CHECK_THAT(changed(whole.size() - 100), Contains("the index has changed"));
  CHECK_THAT(changed(whole.size() - 60), Contains("damaged"));
  CHECK(changed(wide + 100'000) == "accepted");  // outside of the sample
  CHECK_THROWS_WITH(TensorImage(path).check_all(), Contains("bytes of its tensors have changed"));
}
